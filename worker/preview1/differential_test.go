package preview1_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	sequences = flag.Int("sequences", 300, "how many random sequences of calls TestAsTheEngines compares")
	seed      = flag.Uint64("seed", 1, "the first of their seeds")
)

// answer is what a guest learns of a call.
type answer struct {
	Errno errno
	Text  string
}

// step is one call, on a guest with its own numbers for the descriptors that the sequence has opened.
type step struct {
	name string
	run  func(c *caller, fds []uint64) answer
}

// difference is an answer that differs from the engine's, on purpose.
type difference struct {
	reason string
	is     func(name string, ours, theirs answer) bool
}

// intended are all of them. A sequence ends at one after which the files may differ.
var intended = []difference{
	{"a link may lead anywhere in the root, by an absolute path as well: the engine's WASI keeps it beneath the guest's directory",
		func(name string, ours, theirs answer) bool {
			return theirs.Errno == eperm && strings.HasPrefix(name, "path_") && ours.Errno != eperm && !climbs.MatchString(name)
		}},
	{"the text of a link may be absolute, as in images", func(name string, ours, theirs answer) bool {
		return theirs.Errno == eperm && strings.HasPrefix(name, `path_symlink "/`)
	}},
	{"slashes, . and .. at the end of a path mean what they mean to the kernel", func(name string, ours, _ answer) bool {
		return strings.HasPrefix(name, "path_") && ends.MatchString(name) && !(climbs.MatchString(name) && ours.Errno == success)
	}},
	{"a path with a NUL is refused before it is looked up", func(name string, ours, theirs answer) bool {
		return ours.Errno == einval && theirs.Errno > 0 && strings.Contains(name, `\x00`)
	}},
	{"a file is opened for what the guest asks for: the engine's WASI opens what is created or truncated for writing", func(name string, ours, theirs answer) bool {
		switch strings.Fields(name)[0] {
		case "fd_write", "fd_pwrite":
			return ours.Errno == ebadf
		case "fd_filestat_set_size":
			return ours.Errno == einval
		}
		return strings.HasPrefix(name, "fd_fdstat_get") && ours.Text == strings.ReplaceAll(theirs.Text, "0x3fffffff", "0x3fffffbf")
	}},
	{"the file system says how far a position may be", func(name string, ours, theirs answer) bool {
		return ours.Errno == einval && (strings.HasPrefix(name, "fd_seek") || strings.HasPrefix(name, "fd_pwrite"))
	}},
	{"space is allocated; the engine's WASI does not support it", func(name string, ours, theirs answer) bool {
		return strings.HasPrefix(name, "fd_allocate") && theirs.Errno == enotsup
	}},
	{"writes may be synchronous; the engine's WASI does not support it", func(name string, ours, theirs answer) bool {
		return strings.HasPrefix(name, "path_open") && theirs.Errno == enotsup
	}},
	{"a folder can be synchronised, and its times set, as natively", func(name string, ours, theirs answer) bool {
		return strings.HasPrefix(name, "fd_") && strings.Contains(name, "sync") && ours.Errno == success && theirs.Errno == ebadf ||
			strings.HasPrefix(name, "fd_filestat_set_times") && ours.Errno == success && theirs.Errno == ebadf
	}},
	{"setting no time does not look at the path, as natively", func(name string, ours, _ answer) bool {
		return ours.Errno == success && strings.HasPrefix(name, "path_filestat_set_times") && strings.HasSuffix(name, " 0")
	}},
	{"reading a folder is EISDIR, as natively", func(name string, ours, theirs answer) bool {
		return ours.Errno == eisdir && theirs.Errno == ebadf && strings.Contains(name, "read ")
	}},
	{"a path below what is no folder is ENOTDIR, as natively, in every call and not in path_open only", func(name string, ours, theirs answer) bool {
		return ours.Errno == enotdir && theirs.Errno == ebadf && strings.HasPrefix(name, "path_")
	}},
	{"a link that is not followed is no folder, as natively", func(name string, ours, theirs answer) bool {
		return ours.Errno == enotdir && theirs.Errno == eloop && strings.HasPrefix(name, "path_open")
	}},
	{"a number or flag that WASI does not have is EINVAL; the engine's WASI traps", func(_ string, ours, theirs answer) bool {
		return ours.Errno == einval && theirs.Errno == trapped
	}},
	{"of two reasons to refuse a call the other one comes first", func(name string, ours, theirs answer) bool {
		return ours.Errno > 0 && theirs.Errno > 0 && (strings.HasPrefix(name, "path_link") || strings.HasPrefix(name, "path_rename"))
	}},
}

var (
	// climbs is a path that leads out by its own "..": these are refused by both.
	climbs = regexp.MustCompile(`"(\./)*\.\.`)
	// rising is a path that begins at the root, or has "..".
	rising = regexp.MustCompile(`"/|\.\.`)
	// ends is a path with a slash, "." or ".." at its end.
	ends = regexp.MustCompile(`(/|\.)"`)
)

// wasis are the differences between a guest and a native program.
var wasis = []difference{
	{"a native program has no such call", func(_ string, _, theirs answer) bool { return theirs.Errno == unasked }},
	{"a folder is no file: it has no position and no flags", func(name string, ours, _ answer) bool {
		return (ours.Errno == ebadf || ours.Errno == eisdir) && strings.HasPrefix(name, "fd_")
	}},
	{"only a file itself is linked, not what a link leads to, and that is checked first", func(name string, ours, theirs answer) bool {
		return strings.HasPrefix(name, "path_link") && (ours.Errno == einval || ours.Errno == eperm && theirs.Errno != success)
	}},
	{"of two reasons to refuse a call the other one comes first", func(name string, ours, theirs answer) bool {
		return ours.Errno > 0 && theirs.Errno > 0 && (strings.HasPrefix(name, "path_link") || strings.HasPrefix(name, "path_rename"))
	}},
	{"that a path's folder is none comes before what is wrong with the path", func(name string, ours, _ answer) bool {
		return ours.Errno == enotdir && strings.HasPrefix(name, "path_")
	}},
	{"a link in a folder that has been moved does not lead out of that folder", func(name string, ours, _ answer) bool {
		return ours.Errno == eperm && strings.HasPrefix(name, "path_") && !strings.HasPrefix(name, strings.Fields(name)[0]+" 0")
	}},
	{"a flag that WASI does not have, or does not let change, is EINVAL", func(name string, ours, _ answer) bool {
		return ours.Errno == einval && (strings.HasPrefix(name, "fd_filestat_set_times") || strings.HasPrefix(name, "fd_fdstat_set_flags"))
	}},
	{"a link with a slash after its name is not looked at if it leads out of its folder", func(name string, ours, _ answer) bool {
		return ours.Errno == einval && strings.HasPrefix(name, "path_readlink") && ends.MatchString(name)
	}},
	{"a folder is opened as one, and not created, truncated or more", func(name string, ours, _ answer) bool {
		return ours.Errno == einval && strings.HasPrefix(name, "path_open") && strings.Contains(name, "directory")
	}},
	{"a path must not begin at the root, or lead out of the guest's folder by its own ..", func(name string, ours, _ answer) bool {
		return ours.Errno == eperm && strings.HasPrefix(name, "path_") && (climbs.MatchString(name) || rising.MatchString(name))
	}},
}

func reasonOf(differences []difference, name string, ours, theirs answer) string {
	for _, d := range differences {
		if d.is(name, ours, theirs) {
			return d.reason
		}
	}
	return ""
}

// A guest cannot tell this package from the engine's own WASI, but by the intended differences.
func TestAsTheEngines(t *testing.T) {
	seen := map[string]int{}
	for i := range uint64(*sequences) {
		ours, other := roots(t)
		c, fds := theirs(t, other), []uint64{root}
		compare(t, *seed+i, ours, other, intended, seen, func(s step) answer {
			a := s.run(c, fds)
			fds = s.left(c, a, fds)
			return a
		})
	}
	report(t, seen)
}

// Nor can it tell this package from a native container, but by the differences that WASI itself makes.
func TestAsNatively(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for i := range uint64(*sequences) {
		ours, other := roots(t)
		native := exec.Command(self, other)
		native.Env = []string{fmt.Sprintf("%s=%d", nativeSeed, *seed+i)}
		output, err := native.Output()
		var answers []answer
		if err := errors.Join(err, json.Unmarshal(output, &answers)); err != nil {
			t.Fatal(err)
		}
		compare(t, *seed+i, ours, other, wasis, seen, func(step) answer {
			a := answers[0]
			answers = answers[1:]
			return a
		})
	}
	report(t, seen)
}

func report(t *testing.T, seen map[string]int) {
	t.Helper()
	for reason, count := range seen {
		t.Logf("%d times: %s", count, reason)
	}
}

// roots makes two roots with the same files.
func roots(t *testing.T) (a, b string) {
	t.Helper()
	base := t.TempDir()
	for _, name := range []string{"a", "b"} {
		dir := filepath.Join(base, name)
		write(t, filepath.Join(dir, "a"), "content of a")
		write(t, filepath.Join(dir, "d/a"), "content of d/a")
		symlink(t, "d", filepath.Join(dir, "l"))
		symlink(t, "../a", filepath.Join(dir, "d/l"))
	}
	return filepath.Join(base, "a"), filepath.Join(base, "b")
}

const stepsOfASequence = 40

// left returns the descriptors that a step leaves: with one more if it has opened one, without one that it has
// closed, because the next file may get any number that is free.
func (s step) left(c *caller, a answer, fds []uint64) []uint64 {
	var closed int
	switch {
	case a.Errno != success:
	case strings.HasPrefix(s.name, "path_open"):
		return append(fds, c.number(atResult, 4))
	default:
		if n, _ := fmt.Sscanf(s.name, "fd_close %d", &closed); n == 1 {
			return slices.Delete(slices.Clone(fds), closed, closed+1)
		}
	}
	return fds
}

// compare makes random calls as a guest of this package, and compares the answers with those of the others to the
// same calls, and the files at the end.
func compare(t *testing.T, seed uint64, root1, root2 string, differences []difference, seen map[string]int, others func(step) answer) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	c, fds := ours(t, root1), []uint64{root}
	var done []string
	for range stepsOfASequence {
		s := randomStep(random, len(fds))
		done = append(done, s.name)
		a := s.run(c, fds)
		fds = s.left(c, a, fds)
		b := others(s)
		if a == b {
			continue
		}
		reason := reasonOf(differences, s.name, a, b)
		if reason == "" {
			if kind := fmt.Sprint(strings.Fields(s.name)[0], a.Errno, b.Errno); seen[kind] == 0 {
				seen[kind]++
				t.Errorf("seed %d: ours answers %d %q, the other %d %q, to the last of\n%s", seed, a.Errno, a.Text, b.Errno, b.Text, strings.Join(done, "\n"))
			}
			return
		}
		seen[reason]++
		if b.Errno != unasked && (a.Errno == success || b.Errno == success) {
			return // the files may differ now
		}
	}
	if a, b := treeOf(t, root1), treeOf(t, root2); a != b {
		t.Errorf("seed %d: the files are\n%s\nand\n%s\nafter\n%s", seed, a, b, strings.Join(done, "\n"))
	}
}

func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		line := strings.TrimPrefix(path, dir) + " " + entry.Type().String()
		if entry.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", content)
		}
		if target, err := os.Readlink(path); err == nil {
			line += " " + target
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func pick[T any](random *rand.Rand, from ...T) T { return from[random.IntN(len(from))] }

func randomPath(random *rand.Rand) string {
	names := []string{"a", "b", "d", "l", "e", ".", "..", "a", "b", "d", "l"}
	parts := []string{pick(random, names...)}
	for random.IntN(3) == 0 {
		parts = append(parts, pick(random, names...))
	}
	path := strings.Join(parts, "/")
	switch random.IntN(30) {
	case 0:
		return path + "/"
	case 1:
		return "/" + path
	case 2:
		return ""
	case 3:
		return path + "\x00"
	case 4:
		return strings.Repeat("x", 300)
	}
	return path
}

// randomStep returns a call on one of so many descriptors.
func randomStep(random *rand.Rand, descriptors int) step {
	i := random.IntN(descriptors)
	if random.IntN(3) == 0 {
		i = 0
	}
	if random.IntN(2) == 0 {
		return randomPathStep(random, i)
	}
	return randomFileStep(random, i)
}

func randomPathStep(random *rand.Rand, i int) step {
	path, other, lookup := randomPath(random), randomPath(random), uint64(random.IntN(2))
	short := func(p string) string { return fmt.Sprintf("%.20q", p) }
	simple := func(name string) step {
		return step{fmt.Sprintf("%s %d %s", name, i, short(path)), func(c *caller, fds []uint64) answer {
			return answer{Errno: c.path(name, fds[i], path)}
		}}
	}
	two := func(name string, first ...uint64) step {
		return step{fmt.Sprintf("%s %d %s %s", name, i, short(path), short(other)), func(c *caller, fds []uint64) answer {
			return answer{Errno: c.two(name, fds[i], path, root, other, first...)}
		}}
	}
	switch random.IntN(10) {
	case 0:
		return simple("path_create_directory")
	case 1:
		return simple("path_remove_directory")
	case 2:
		return simple("path_unlink_file")
	case 3:
		return two("path_rename")
	case 4:
		return two("path_link", lookup)
	case 5:
		return step{fmt.Sprintf("path_symlink %s %s", short(path), short(other)), func(c *caller, fds []uint64) answer { return answer{Errno: c.symlink(path, other)} }}
	case 6:
		return step{fmt.Sprintf("path_readlink %d %s", i, short(path)), func(c *caller, fds []uint64) answer {
			at, length := c.text(atPath, path)
			err := c.call("path_readlink", fds[i], at, length, atData, 10, atResult)
			if err != success {
				return answer{Errno: err}
			}
			return answer{err, string(c.bytes()[atData : atData+int(c.number(atResult, 4))])}
		}}
	case 7:
		return step{fmt.Sprintf("path_filestat_get %d %d %s", i, lookup, short(path)), func(c *caller, fds []uint64) answer {
			at, length := c.text(atPath, path)
			return statusAnswer(c, c.call("path_filestat_get", fds[i], lookup, at, length, atResult))
		}}
	case 8:
		flags := uint64(random.IntN(16))
		return step{fmt.Sprintf("path_filestat_set_times %d %d %s %d", i, lookup, short(path), flags), func(c *caller, fds []uint64) answer {
			at, length := c.text(atPath, path)
			return answer{Errno: c.call("path_filestat_set_times", fds[i], lookup, at, length, 5e9, 6e9, flags)}
		}}
	}
	return randomOpen(random, i, lookup, path)
}

func randomOpen(random *rand.Rand, i int, lookup uint64, path string) step {
	how, flags := uint64(0), uint64(0)
	var words []string
	for _, choice := range []struct {
		word string
		bit  uint64
		into *uint64
		odds int
	}{
		{"create", create, &how, 3}, {"directory", onlyDir, &how, 6}, {"exclusive", exclusive, &how, 8}, {"truncate", truncate, &how, 6},
		{"append", appends, &flags, 5}, {"nonblock", nonblock, &flags, 8}, {"sync", 16, &flags, 20},
	} {
		if random.IntN(choice.odds) == 0 {
			*choice.into |= choice.bit
			words = append(words, choice.word)
		}
	}
	rights := pick[uint64](random, 0, mayRead, mayWrite, mayRead|mayWrite, mayRead|mayWrite)
	return step{fmt.Sprintf("path_open %d %d %.20q %v rights %d", i, lookup, path, words, rights), func(c *caller, fds []uint64) answer {
		_, err := c.open(fds[i], lookup, path, how, rights, flags)
		return answer{Errno: err}
	}}
}

func randomFileStep(random *rand.Rand, i int) step {
	offset := pick[uint64](random, 0, 0, 1, 5, 100, 1<<63, 1<<63-1)
	size := random.IntN(20)
	text := strings.Repeat(pick(random, "x", "y"), size)
	moved := func(c *caller, err errno) answer {
		if err != success {
			return answer{Errno: err}
		}
		n := int(c.number(atResult, 4))
		return answer{err, fmt.Sprint(n, string(c.bytes()[atData:atData+n]))}
	}
	plain := func(name string, arguments ...uint64) step {
		return step{fmt.Sprint(name, " ", i, arguments), func(c *caller, fds []uint64) answer {
			return answer{Errno: c.call(name, append([]uint64{fds[i]}, arguments...)...)}
		}}
	}
	switch random.IntN(16) {
	case 0, 1:
		return step{fmt.Sprint("fd_read ", i, size), func(c *caller, fds []uint64) answer {
			c.vector(atData, uint64(size))
			return moved(c, c.call("fd_read", fds[i], atVector, 1, atResult))
		}}
	case 2, 3:
		return step{fmt.Sprint("fd_write ", i, size), func(c *caller, fds []uint64) answer {
			c.vector(c.text(atData, text))
			return moved(c, c.call("fd_write", fds[i], atVector, 1, atResult))
		}}
	case 4:
		return step{fmt.Sprint("fd_pread ", i, size, " at ", offset), func(c *caller, fds []uint64) answer {
			c.vector(atData, uint64(size))
			return moved(c, c.call("fd_pread", fds[i], atVector, 1, offset, atResult))
		}}
	case 5:
		return step{fmt.Sprint("fd_pwrite ", i, size, " at ", offset), func(c *caller, fds []uint64) answer {
			c.vector(c.text(atData, text))
			return moved(c, c.call("fd_pwrite", fds[i], atVector, 1, offset, atResult))
		}}
	case 6, 7:
		whence := uint64(random.IntN(4))
		return step{fmt.Sprint("fd_seek ", i, " ", offset, whence), func(c *caller, fds []uint64) answer {
			err := c.call("fd_seek", fds[i], offset, whence, atResult)
			if err != success {
				return answer{Errno: err}
			}
			return answer{err, fmt.Sprint(c.number(atResult, 8))}
		}}
	case 8:
		return step{fmt.Sprint("fd_filestat_get ", i), func(c *caller, fds []uint64) answer {
			return statusAnswer(c, c.call("fd_filestat_get", fds[i], atResult))
		}}
	case 9:
		return step{fmt.Sprint("fd_fdstat_get ", i), func(c *caller, fds []uint64) answer {
			err := c.call("fd_fdstat_get", fds[i], atResult)
			if err != success {
				return answer{Errno: err}
			}
			return answer{err, fmt.Sprintf("%d %#x %#x %#x", c.number(atResult, 1), c.number(atResult+2, 2), c.number(atResult+8, 8), c.number(atResult+16, 8))}
		}}
	case 10:
		return plain("fd_filestat_set_size", min(offset, 1<<63))
	case 11:
		return plain("fd_fdstat_set_flags", uint64(pick(random, 0, 1, 4, 5, 16)))
	case 12:
		if i > 0 && random.IntN(2) == 0 {
			return plain("fd_close")
		}
		return plain(pick(random, "fd_sync", "fd_datasync"))
	case 13:
		return pick(random, plain("fd_advise", 0, 10, uint64(random.IntN(7))), plain("fd_allocate", 0, 10), plain("fd_prestat_get", atResult),
			plain("fd_filestat_set_times", 1e9, 2e9, uint64(random.IntN(17))))
	case 14:
		return step{fmt.Sprint("fd_tell ", i), func(c *caller, fds []uint64) answer {
			err := c.call("fd_tell", fds[i], atResult)
			if err != success {
				return answer{Errno: err}
			}
			return answer{err, fmt.Sprint(c.number(atResult, 8))}
		}}
	}
	return step{fmt.Sprint("fd_readdir ", i), func(c *caller, fds []uint64) answer { return listing(c, fds[i]) }}
}

func statusAnswer(c *caller, err errno) answer {
	if err != success {
		return answer{Errno: err}
	}
	s := c.statusAt()
	const folder = 3
	if s.kind == folder {
		s.size, s.links = 0, 0
	}
	return answer{err, fmt.Sprint(s.kind, s.links, s.size)}
}

// listing returns the names and types of a folder, sorted.
func listing(c *caller, fd uint64) answer {
	err := c.call("fd_readdir", fd, atData, 4096, 0, atResult)
	if err != success {
		return answer{Errno: err}
	}
	var names []string
	for at, end := atData, atData+int(c.number(atResult, 4)); at < end; {
		next := at + 24 + int(c.number(at+16, 4))
		names = append(names, fmt.Sprintf("%s %d", c.bytes()[at+24:next], c.bytes()[at+20]))
		at = next
	}
	slices.Sort(names)
	return answer{err, strings.Join(names, ", ")}
}
