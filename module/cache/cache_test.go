package cache

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

const engine = "engine1"

// helperEnv makes the test binary the helper process of that name, on the cache in dirEnv.
const (
	helperEnv = "CACHE_TEST_HELPER"
	dirEnv    = "CACHE_TEST_DIR"
)

func TestMain(m *testing.M) {
	switch os.Getenv(helperEnv) {
	case "load":
		helpLoad()
	case "compile":
		helpCompile()
	case "die":
		helpDie()
	default:
		os.Exit(m.Run())
	}
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// compiler counts its runs.
type compiler struct {
	code string
	runs int
}

func (c *compiler) compile(_ context.Context, out *os.File) (*control.Module, error) {
	c.runs++
	_, err := out.WriteString(c.code)
	return &control.Module{Functions: []string{"_start"}}, err
}

func open(t *testing.T, dir string) *Cache {
	t.Helper()
	c, err := Open(dir, engine)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// load returns the code of an entry.
func load(t *testing.T, c *Cache, digest string, compile Compiler) string {
	t.Helper()
	entry, err := c.Load(t.Context(), digest, compile)
	if err != nil {
		t.Fatal(err)
	}
	defer entry.Code.Close()
	code, err := io.ReadAll(entry.Code)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(entry.Module.Functions, []string{"_start"}) {
		t.Errorf("the entry is described as %+v", entry.Module)
	}
	return string(code)
}

// wantFiles fails for any file in the cache that does not belong to a whole entry.
func wantFiles(t *testing.T, c *Cache, digests ...string) {
	t.Helper()
	var want, got []string
	for _, digest := range digests {
		want = append(want, digest+codeSuffix, digest+indexSuffix)
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the cache holds %q, want %q", got, want)
	}
}

func TestLoadCompilesOncePerContentAndEngine(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	one, other := &compiler{code: "one"}, &compiler{code: "other"}
	for range 3 {
		if got := load(t, c, digestOf("1"), one.compile); got != "one" {
			t.Errorf("got %q", got)
		}
		if got := load(t, c, digestOf("2"), other.compile); got != "other" {
			t.Errorf("got %q", got)
		}
	}
	if one.runs != 1 || other.runs != 1 {
		t.Errorf("compiled %d and %d times", one.runs, other.runs)
	}
	wantFiles(t, c, digestOf("1"), digestOf("2"))
	second, err := Open(dir, "engine2")
	if err != nil {
		t.Fatal(err)
	}
	if load(t, second, digestOf("1"), one.compile); one.runs != 2 {
		t.Error("another engine got this one's code")
	}
}

func TestEntryIsReadOnly(t *testing.T) {
	c := open(t, t.TempDir())
	digest := digestOf("module")
	load(t, c, digest, (&compiler{code: "code"}).compile)
	info, err := os.Stat(c.path(digest, codeSuffix))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o444 {
		t.Errorf("the code has mode %v", info.Mode())
	}
}

// rewrite changes the file in place until the kernel's clock, by which it dates changes, has ticked.
func rewrite(path string, change func(f *os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	before, err := identify(f)
	if err != nil {
		return err
	}
	for {
		if err := change(f); err != nil {
			return err
		}
		if now, err := identify(f); err != nil || now.Ctime != before.Ctime {
			return err
		}
	}
}

func flip(at int64) func(code, index string) error {
	return func(code, _ string) error {
		info, err := os.Stat(code)
		if err != nil {
			return err
		}
		err = rewrite(code, func(f *os.File) error {
			_, err := f.WriteAt([]byte{'X'}, at)
			return err
		})
		// An attacker sets the time back to hide the change.
		return errors.Join(err, os.Chtimes(code, info.ModTime(), info.ModTime()))
	}
}

// An entry that is not exactly the file that was written is compiled again, whatever its damage.
func TestDamagedEntryIsCompiledAgain(t *testing.T) {
	const code = "machine code of a module"
	damages := map[string]func(code, index string) error{
		"first byte":     flip(0),
		"middle byte":    flip(int64(len(code) / 2)),
		"last byte":      flip(int64(len(code) - 1)),
		"truncated":      func(code, _ string) error { return os.Truncate(code, 5) },
		"emptied":        func(code, _ string) error { return os.Truncate(code, 0) },
		"appended":       func(code, _ string) error { return os.Truncate(code, 4096) },
		"missing code":   func(code, _ string) error { return os.Remove(code) },
		"missing index":  func(_, index string) error { return os.Remove(index) },
		"garbage index":  func(_, index string) error { return os.WriteFile(index, []byte("\x00\xff{]"), 0o600) },
		"empty index":    func(_, index string) error { return os.WriteFile(index, nil, 0o600) },
		"half an index":  func(_, index string) error { return os.Truncate(index, 20) },
		"index of zeros": func(_, index string) error { return os.WriteFile(index, []byte("{}"), 0o600) },
		"replaced code": func(code, _ string) error {
			return errors.Join(os.WriteFile(code+".other", []byte(strings.Repeat("x", 24)), 0o444), os.Rename(code+".other", code))
		},
		"copied code": func(code, _ string) error {
			content, err := os.ReadFile(code)
			return errors.Join(err, os.WriteFile(code+".other", content, 0o444), os.Rename(code+".other", code))
		},
		"linked code": func(code, _ string) error {
			target := filepath.Join(filepath.Dir(filepath.Dir(code)), "elsewhere")
			return errors.Join(os.Rename(code, target), os.Symlink(target, code))
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			c := open(t, t.TempDir())
			digest := digestOf("module")
			made := &compiler{code: code}
			load(t, c, digest, made.compile)
			if err := damage(c.path(digest, codeSuffix), c.path(digest, indexSuffix)); err != nil {
				t.Fatal(err)
			}
			if entry, err := c.lookup(digest); err == nil {
				entry.Code.Close()
				t.Error("the damaged entry was taken for whole")
			}
			for range 2 {
				if got := load(t, c, digest, made.compile); got != code {
					t.Errorf("got %q", got)
				}
			}
			if made.runs != 2 {
				t.Errorf("compiled %d times, want once and once again", made.runs)
			}
			wantFiles(t, c, digest)
		})
	}
}

// If a folder is in the place of an entry, Load returns an error.
func TestEntryThatCannotBeReplaced(t *testing.T) {
	c := open(t, t.TempDir())
	digest := digestOf("module")
	if err := os.MkdirAll(filepath.Join(c.path(digest, codeSuffix), "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := c.Load(t.Context(), digest, (&compiler{code: "code"}).compile)
	if err == nil || !strings.Contains(err.Error(), "publish cache entry") {
		t.Errorf("got %v", err)
	}
}

func TestFailedCompilationLeavesNothing(t *testing.T) {
	c := open(t, t.TempDir())
	digest := digestOf("module")
	refused := errors.New("not a module")
	_, err := c.Load(t.Context(), digest, func(_ context.Context, out *os.File) (*control.Module, error) {
		_, err := out.WriteString("half of")
		return nil, errors.Join(err, refused)
	})
	if !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	wantFiles(t, c)
}

// helper starts this binary as a helper process on dir. It ends with the test.
func helper(t *testing.T, name, dir string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+name, dirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(stdout)
}

const (
	helpers        = 4
	loadsPerHelper = 50
)

// helpLoad loads one digest many times at once, and prints a line before it does.
func helpLoad() {
	dir := os.Getenv(dirEnv)
	c, err := Open(filepath.Join(dir, "cache"), engine)
	if err != nil {
		panic(err)
	}
	compile := func(_ context.Context, out *os.File) (*control.Module, error) {
		count, err := os.OpenFile(filepath.Join(dir, "count"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		_, err = count.WriteString("compiled\n")
		if _, failed := out.WriteString("code"); failed != nil {
			err = failed
		}
		return &control.Module{Functions: []string{"_start"}}, errors.Join(err, count.Close())
	}
	fmt.Println("ready")
	var group sync.WaitGroup
	for range loadsPerHelper {
		group.Go(func() {
			entry, err := c.Load(context.Background(), digestOf("module"), compile)
			if err != nil {
				panic(err)
			}
			defer entry.Code.Close()
			code, err := io.ReadAll(entry.Code)
			if err != nil || string(code) != "code" {
				panic(fmt.Sprintf("got %q, %v", code, err))
			}
		})
	}
	group.Wait()
}

// Of many concurrent Loads, in several processes, one compiles.
func TestConcurrentLoadsCompileOnce(t *testing.T) {
	dir := t.TempDir()
	c := open(t, filepath.Join(dir, "cache"))
	// Hold the lock, so that no process begins before all are ready.
	lock, err := c.lock(t.Context(), digestOf("module"), workSuffix)
	if err != nil {
		t.Fatal(err)
	}
	var started []*exec.Cmd
	for range helpers {
		cmd, stdout := helper(t, "load", dir)
		started = append(started, cmd)
		if line, err := stdout.ReadString('\n'); err != nil || line != "ready\n" {
			t.Fatalf("helper said %q, %v", line, err)
		}
	}
	lock.Release()
	for _, cmd := range started {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	count, err := os.ReadFile(filepath.Join(dir, "count"))
	if err != nil || !bytes.Equal(count, []byte("compiled\n")) {
		t.Errorf("%d loads compiled %q, %v", helpers*loadsPerHelper, count, err)
	}
	wantFiles(t, c, digestOf("module"))
}

// helpDie is killed while it compiles.
func helpDie() {
	c, err := Open(os.Getenv(dirEnv), engine)
	if err != nil {
		panic(err)
	}
	_, err = c.Load(context.Background(), digestOf("module"), func(_ context.Context, out *os.File) (*control.Module, error) {
		if _, err := out.WriteString("half of the co"); err != nil {
			return nil, err
		}
		fmt.Println("compiling")
		select {}
	})
	panic(err)
}

// A killed compiler leaves no code that is loaded, and no lock; the next one cleans up.
func TestKilledCompiler(t *testing.T) {
	dir := t.TempDir()
	cmd, stdout := helper(t, "die", dir)
	if line, err := stdout.ReadString('\n'); err != nil || line != "compiling\n" {
		t.Fatalf("helper said %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the helper was not killed")
	}
	c := open(t, dir)
	digest := digestOf("module")
	if left, err := filepath.Glob(c.path(digest, ".*"+partSuffix)); err != nil || len(left) != 1 {
		t.Fatalf("the helper left of an unfinished entry %q, %v", left, err)
	}
	made := &compiler{code: "code"}
	if got := load(t, c, digest, made.compile); got != "code" || made.runs != 1 {
		t.Errorf("got %q after %d compilations", got, made.runs)
	}
	wantFiles(t, c, digest)
}

// A wait for another's compilation can be cancelled, and does not keep the lock.
func TestWaitIsCalledOff(t *testing.T) {
	c := open(t, t.TempDir())
	digest := digestOf("module")
	lock, err := c.lock(t.Context(), digest, workSuffix)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	made := &compiler{code: "code"}
	go func() {
		_, err := c.Load(ctx, digest, made.compile)
		failed <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), digest) {
		t.Errorf("got %v", err)
	}
	lock.Release()
	if got := load(t, c, digest, made.compile); got != "code" || made.runs != 1 {
		t.Errorf("got %q after %d compilations", got, made.runs)
	}
	wantFiles(t, c, digest)
}

// Open refuses a folder that others can write to, because the code in the cache is executed.
func TestOpenRefusesWhatIsNotRootsAlone(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"others can write":         func(dir string) error { return os.Chmod(dir, 0o707) },
		"its group can write":      func(dir string) error { return os.Chmod(dir, 0o770) },
		"sticky":                   func(dir string) error { return unix.Chmod(dir, 0o1777) },
		"somebody else's":          func(dir string) error { return os.Chown(dir, 65534, 65534) },
		"engine's can be written":  func(dir string) error { return os.Chmod(filepath.Join(dir, engine), 0o777) },
		"engine's somebody else's": func(dir string) error { return os.Chown(filepath.Join(dir, engine), 65534, 0) },
		"a link":                   func(dir string) error { return errors.Join(os.Rename(dir, dir+"2"), os.Symlink(dir+"2", dir)) },
		"a file":                   func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			open(t, dir)
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir, engine); err == nil || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestOpenMakesFoldersForRootAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "cache")
	open(t, dir)
	for _, path := range []string{dir, filepath.Join(dir, engine)} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
	}
}

// hold acts on an entry's code as a container that sees it can: it opens the code for reading and takes the
// strongest locks that it gets.
func hold(t *testing.T, c *Cache, digest string) {
	t.Helper()
	code, err := os.Open(c.path(digest, codeSuffix))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { code.Close() })
	if err := unix.Flock(int(code.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(code.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
}

// Whatever a container locks, other processes get the code or compile it, and the cache is listed and cleaned
// up.
func TestNobodyWaitsForWhoHoldsCode(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	fill(t, c, "held", "other")
	hold(t, c, digestOf("held"))
	all, err := List(t.Context(), dir)
	if err != nil || len(all) != 2 || !all[0].InUse {
		t.Errorf("listed %+v, %v", all, err)
	}
	if removed, _ := runTrim(t, dir, 0, nil); !slices.Equal(removed, digestsOf("other")) {
		t.Errorf("removed %q", removed)
	}
	again := &compiler{code: "again"}
	if got := load(t, c, digestOf("held"), again.compile); got != "again" {
		t.Errorf("got %q", got)
	}
	if got := load(t, c, digestOf("held"), again.compile); got != "again" || again.runs != 1 {
		t.Errorf("got %q after %d compilations", got, again.runs)
	}
	wantFiles(t, c, digestsOf("held")...)
}

// A job that has waited for a turn to compile looks again, and takes an entry that was made meanwhile.
func TestLoadTakesWhatWasMadeMeanwhile(t *testing.T) {
	dir, digest := t.TempDir(), digestOf("module")
	c, hasty := open(t, dir), open(t, dir)
	hasty.patience = time.Millisecond
	if c.Has(digest) {
		t.Fatal("an empty cache has it")
	}
	entry, err := c.Load(t.Context(), digest, func(context.Context, *os.File) (*control.Module, error) {
		if got := load(t, hasty, digest, (&compiler{code: "other"}).compile); got != "other" {
			t.Errorf("the other container got %q", got)
		}
		if !c.Has(digest) {
			t.Error("what the other has made is not seen")
		}
		return nil, ErrMade
	})
	if err != nil {
		t.Fatal(err)
	}
	defer entry.Close()
	if entry.Compiled {
		t.Error("it is told to have been compiled for this container")
	}
}

// Load waits only a limited time for a process that compiles for ever, as under the limits of a tiny pod.
// Another makes the entry, which is whole even if the first process finishes last.
func TestLoadWaitsForACompilationButNotForLong(t *testing.T) {
	dir, digest := t.TempDir(), digestOf("module")
	c := open(t, dir)
	begun, end, ended := make(chan struct{}), make(chan struct{}), make(chan Entry, 1)
	go func() {
		defer close(ended)
		slow, err := c.Load(t.Context(), digest, func(_ context.Context, out *os.File) (*control.Module, error) {
			close(begun)
			<-end
			_, err := out.WriteString("slow")
			return &control.Module{Functions: []string{"_start"}}, err
		})
		if err != nil {
			t.Error(err)
			return
		}
		ended <- slow
	}()
	<-begun
	hasty := open(t, dir)
	hasty.patience = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	fast := &compiler{code: "fast"}
	if _, err := hasty.Load(ctx, digest, fast.compile); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	for range 2 { // the second finds the entry of the first
		if got := load(t, hasty, digest, fast.compile); got != "fast" || fast.runs != 1 {
			t.Errorf("got %q after %d compilations", got, fast.runs)
		}
	}
	for _, clean := range []func() error{
		func() error { return Sweep(dir) },
		func() error { _, _, err := Trim(t.Context(), dir, 1<<20, nil); return err },
	} {
		if err := clean(); err != nil {
			t.Error(err)
		}
	}
	if names, err := readNames(dir + "/" + engine); err != nil || len(names) != 4 {
		t.Errorf("of an entry and a compilation there is %q, %v", names, err)
	}
	close(end)
	slow := <-ended
	defer slow.Code.Close()
	if code, err := io.ReadAll(slow.Code); err != nil || string(code) != "fast" || slow.Compiled {
		t.Errorf("got %q, compiled %v, %v", code, slow.Compiled, err)
	}
	wantFiles(t, c, digest)
}

// Load waits only a limited time for a process that changes an entry's files.
func TestLoadWaitsForNoChangeForLong(t *testing.T) {
	c := open(t, t.TempDir())
	c.patience = time.Millisecond
	lock, err := c.lock(t.Context(), digestOf("module"), lockSuffix)
	if err != nil {
		t.Fatal(err)
	}
	compiler := &compiler{code: "code"}
	if _, err := c.Load(t.Context(), digestOf("module"), compiler.compile); !errors.Is(err, ErrHeld) {
		t.Errorf("got %v", err)
	}
	lock.Release()
	if got := load(t, c, digestOf("module"), compiler.compile); got != "code" {
		t.Errorf("got %q", got)
	}
	wantFiles(t, c, digestOf("module"))
}
