package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/archive"
	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testmount"
	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
)

// TestMain also is the process that testmount.OpenOnce starts.
func TestMain(m *testing.M) {
	testmount.Main()
	unix.Umask(0)
	os.Exit(m.Run())
}

// arrivingObject is an object that arrives: a request waits until all of it is there.
type arrivingObject struct {
	content []byte
	end     int64 // from here on it is there
	mu      sync.Mutex
	there   int
	more    chan struct{}
}

func newArriving(content []byte) *arrivingObject {
	return &arrivingObject{content: content, end: math.MaxInt64, more: make(chan struct{})}
}

func (o *arrivingObject) release(upTo int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.there = upTo
	close(o.more)
	o.more = make(chan struct{})
}

func (o *arrivingObject) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	for {
		o.mu.Lock()
		there, more := o.there, o.more
		o.mu.Unlock()
		if int(off)+len(p) <= there || off >= o.end {
			return copy(p, o.content[off:]), nil
		}
		if there < 0 {
			return 0, errors.New("the store is gone")
		}
		select {
		case <-more:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// whole is an object that is there.
func whole(content []byte) *arrivingObject {
	o := newArriving(content)
	o.there = len(content)
	return o
}

func random(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(p)
	return p
}

var modified = time.Unix(1_500_000_000, 0)

// pack returns a tarball as Argo makes it, of pairs of a name and the size of the file. A size of -1 is a folder's.
func pack(t testing.TB, files ...any) []byte {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	all := tar.NewWriter(compressed)
	for i := 0; i < len(files); i += 2 {
		name, size := files[i].(string), files[i+1].(int)
		h := tar.Header{Name: name, Size: int64(size), Mode: 0o644, Typeflag: tar.TypeReg, ModTime: modified}
		if size < 0 {
			h.Size, h.Mode, h.Typeflag = 0, 0o755, tar.TypeDir
		}
		if err := all.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := all.Write(random(max(size, 0))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(all.Close(), compressed.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// world is an artifact that is served.
type world struct {
	*Artifact
	at     string // the mount
	place  string // the placeholder
	server *Server
	log    *bytes.Buffer
	done   chan error // of unpacking, closed then
}

// zipped returns a zip file of files with the same size.
func zipped(t testing.TB, size int, names ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	all := zip.NewWriter(&out)
	for _, name := range names {
		w, err := all.Create(name)
		if err == nil {
			_, err = w.Write(random(size))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := all.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// start serves an artifact and unpacks it from an object.
func start(t testing.TB, content []byte, from *arrivingObject) *world {
	t.Helper()
	return startIn(t, t.TempDir(), content, from)
}

func startIn(t testing.TB, dir string, content []byte, from *arrivingObject) *world {
	t.Helper()
	format := archive.Auto
	if bytes.HasPrefix(content, []byte("PK")) {
		format = archive.Zip
	}
	plan, err := archive.Look(t.Context(), whole(content), int64(len(content)), format)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{at: dir + "/at", place: dir + "/place", log: &bytes.Buffer{}, done: make(chan error, 1)}
	o := Options{Name: "a", Log: slog.New(slog.NewTextHandler(w.log, nil))}
	rootmode := unix.S_IFDIR
	if plan.Kind == archive.Tree {
		err = errors.Join(os.Mkdir(w.at, 0o755), os.Mkdir(w.place, 0o755))
		place, openErr := os.OpenRoot(w.place)
		if err = errors.Join(err, openErr); err != nil {
			t.Fatal(err)
		}
		w.Artifact, err = NewFolder(plan, place, o)
	} else {
		rootmode = unix.S_IFREG
		err = errors.Join(os.WriteFile(w.at, nil, 0o644), os.WriteFile(w.place, nil, 0o644))
		place, openErr := os.OpenFile(w.place, os.O_RDWR, 0)
		if err = errors.Join(err, openErr); err != nil {
			t.Fatal(err)
		}
		w.Artifact, err = NewFile(plan, place, o)
	}
	if err != nil {
		t.Fatal(err)
	}
	device := testmount.Attach(t, w.at, uint32(rootmode))
	t.Cleanup(func() {
		if err := unix.Unmount(w.at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		device.Close() // or what looks for the mount's root waits for ever
	})
	if w.server, err = w.Serve(device); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(w.done)
		w.done <- w.Unpack(ctx, from, int64(len(from.content)))
	}()
	t.Cleanup(func() {
		cancel()
		for range w.done {
		}
		w.server.Close()
		w.Artifact.Close()
		if len(w.server.open.all) > 0 {
			t.Error("files are open")
		}
	})
	return w
}

// waits waits until so many requests wait.
func (w *world) waits(t testing.TB, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := poll.Until(ctx, func() (bool, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.waiting == n, nil
	})
	if err != nil {
		t.Fatalf("%d requests wait, want %d", w.waiting, n)
	}
}

// read reads a part of a file without Go's poller.
func read(name string, off int64, n int) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	p := make([]byte, n)
	n, err = unix.Pread(fd, p, off)
	return p[:max(n, 0)], err
}

func wantPart(t testing.TB, name string, off int64, want []byte) {
	t.Helper()
	if got, err := read(name, off, len(want)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s from %d: got %d bytes, %v", name, off, len(got), err)
	}
}

// The first file can be read before the last has come, and what waits goes on when it has.
func TestReadWhileArriving(t *testing.T) {
	const small, large = 20_000, 3 << 20
	content := pack(t, "d", -1, "d/first", small, "d/sub/second", large, "d/third", small)
	from := newArriving(content)
	w := start(t, content, from)
	from.release(64<<10 + 128<<10)
	wantPart(t, w.at+"/first", 0, random(small))
	wantPart(t, w.at+"/sub/second", 0, random(large)[:100_000])
	info, err := os.Lstat(w.at + "/sub/second")
	if err != nil || info.Size() != large || !info.ModTime().Equal(modified) || info.Mode() != 0o644 {
		t.Errorf("got %v, %v", info, err)
	}
	waiting := []func() error{
		func() error { wantPart(t, w.at+"/sub/second", large-10, random(large)[large-10:]); return nil },
		func() error { wantPart(t, w.at+"/third", 0, random(small)); return nil },
		func() error {
			if _, err := os.Lstat(w.at + "/none"); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("got %v", err)
			}
			return nil
		},
		func() error {
			names, err := os.ReadDir(w.at)
			if len(names) != 3 {
				return fmt.Errorf("got %v, %v", names, err)
			}
			return nil
		},
		func() error { return unix.Chmod(w.at+"/sub/second", 0o600) },
		func() error {
			fd, err := unix.Open(w.at+"/sub/second", unix.O_WRONLY, 0)
			unix.Close(fd)
			return err
		},
	}
	var group sync.WaitGroup
	ended := make(chan error, len(waiting))
	for _, f := range waiting {
		group.Go(func() { ended <- f() })
	}
	w.waits(t, len(waiting))
	// What has arrived can be changed meanwhile, and killed readers do not wait.
	if err := errors.Join(unix.Chmod(w.at+"/first", 0o600), unix.Truncate(w.at+"/first", 10)); err != nil {
		t.Error(err)
	}
	killed := exec.Command("cat", w.at+"/fourth")
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	w.waits(t, len(waiting)+1)
	_ = killed.Process.Kill()
	_ = killed.Wait()
	w.waits(t, len(waiting))
	if len(ended) > 0 {
		t.Errorf("it has not waited: %v", <-ended)
	}
	from.release(len(content))
	group.Wait()
	close(ended)
	for err := range ended {
		if err != nil {
			t.Error(err)
		}
	}
	if err := <-w.done; err != nil {
		t.Error(err)
	}
	wantPart(t, w.at+"/first", 0, random(small)[:10])
	wantPart(t, w.at+"/sub/second", 0, random(large)[:100_000])
}

// An artifact that is a file is read while it arrives, and is changed when it has.
func TestFileWhileArriving(t *testing.T) {
	const large = 3 << 20
	content := pack(t, "f", large)
	from := newArriving(content)
	w := start(t, content, from)
	from.release(64 << 10)
	info, err := os.Lstat(w.at)
	if err != nil || info.Size() != large || info.Mode() != 0o644 || !info.ModTime().Equal(modified) {
		t.Errorf("got %v, %v", info, err)
	}
	wantPart(t, w.at, 10, random(large)[10:10_000])
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		wantPart(t, w.at, large-10, random(large)[large-10:])
		if got, err := read(w.at, large, 10); err != nil || len(got) != 0 {
			t.Errorf("after the end: %v, %v", got, err)
		}
	}()
	w.waits(t, 1)
	from.release(len(content))
	<-ended
	if err := <-w.done; err != nil {
		t.Fatal(err)
	}
	testmount.OpenOnce(t, w.at)
	if err := errors.Join(os.WriteFile(w.at, []byte("new"), 0), os.Chmod(w.at, 0o751), os.Chown(w.at, 5, 6), os.Chtimes(w.at, modified, modified)); err != nil {
		t.Error(err)
	}
	wantPart(t, w.at, 0, []byte("new"))
	info, err = os.Lstat(w.at)
	if err != nil || info.Size() != 3 || info.Mode() != 0o751 || info.Sys().(*syscall.Stat_t).Uid != 5 || !info.ModTime().Equal(modified) {
		t.Errorf("got %v, %v", info, err)
	}
}

// The list of a zip file is read first. Its files are unpacked in their order.
func TestZipWhileArriving(t *testing.T) {
	const size = 1 << 20
	content := zipped(t, size, "a", "d/b", "c")
	from := newArriving(content)
	from.end = int64(len(content)) - 80<<10 // the list, and where it is looked for
	w := start(t, content, from)
	from.release(size + 100_000)
	wantPart(t, w.at+"/a", 0, random(size))
	wantPart(t, w.at+"/d/b", 0, random(size)[:10_000])
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		wantPart(t, w.at+"/c", 0, random(size))
	}()
	w.waits(t, 1)
	from.release(len(content))
	<-ended
	if err := <-w.done; err != nil {
		t.Error(err)
	}
}

// After an error everything fails.
func TestArrivesDamaged(t *testing.T) {
	const large = 3 << 20
	content := pack(t, "d", -1, "d/first", 20_000, "d/second", large)
	damaged := bytes.Clone(content)
	copy(damaged[2<<20:], make([]byte, 1000))
	for name, c := range map[string]*arrivingObject{
		"short":    newArriving(content[:2<<20]),
		"damaged":  newArriving(damaged),
		"store":    newArriving(content),
		"other":    newArriving(pack(t, "d", -1, "d/first", 20_000, "e/second", large)),
		"same":     newArriving(pack(t, "d", -1, "d/first", 20_000, "d/first", 20_000)),
		"no space": newArriving(content),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if name == "no space" {
				if err := unix.Mount("test", dir, "tmpfs", 0, "size=1m"); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			}
			w := startIn(t, dir, content, c)
			ended := make(chan error, 3)
			go func() { _, err := read(w.at+"/second", large-10, 10); ended <- err }()
			go func() { _, err := read(w.at+"/third", 0, 10); ended <- err }()
			go func() { _, err := os.ReadDir(w.at); ended <- err }()
			w.waits(t, 3)
			if c.release(len(c.content)); name == "store" {
				c.release(-1)
			}
			for range 3 {
				if err := <-ended; !errors.Is(err, unix.EIO) {
					t.Errorf("got %v", err)
				}
			}
			if err := <-w.done; err == nil || !strings.Contains(w.log.String(), "EIO") {
				t.Errorf("got %v, log %s", err, w.log)
			}
			t.Log(w.log.String())
			if _, err := read(w.at+"/first", 0, 10); !errors.Is(err, unix.EIO) {
				t.Errorf("first: %v", err)
			}
		})
	}
}

// Requests that wait end with the server, and with the mount.
func TestServerEnds(t *testing.T) {
	content := pack(t, "d", -1, "d/first", 20_000, "d/second", 3<<20)
	for name, end := range map[string]func(w *world) error{
		"close": func(w *world) error { return w.server.Close() },
		"abort": func(w *world) error { return unix.Unmount(w.at, unix.MNT_FORCE) },
	} {
		t.Run(name, func(t *testing.T) {
			from := newArriving(content)
			w := start(t, content, from)
			from.release(64 << 10)
			fd, err := unix.Open(w.at+"/first", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			ended := make(chan error)
			go func() { _, err := read(w.at+"/third", 0, 10); ended <- err }()
			w.waits(t, 1)
			_ = end(w) // it is busy
			if err := <-ended; err == nil {
				t.Error("it is read")
			}
			w.server.Wait()
		})
	}
}

// Changes of what has arrived are those of a local folder.
func TestChangesAsLocal(t *testing.T) {
	content := pack(t, "d", -1, "d/a", 100, "d/b", 0, "d/e", -1, "d/e/c", 200_000, "d/g", -1)
	w := start(t, content, whole(content))
	if err := <-w.done; err != nil {
		t.Fatal(err)
	}
	local := t.TempDir()
	if out, err := exec.Command("cp", "-a", w.place+"/.", local).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	testmount.OpenOnce(t, w.at+"/a")
	for _, script := range []string{
		"cat a b e/c | sha256sum", "ls -aR .", "echo x >> a; cat a", "echo y > a; cat a", "cat none", "mkdir n n/m && ls n",
		"rmdir e", "mv e n/e && cat n/e/c | sha256sum && ls e", "mv n/e e", "mv a e", "mv e/a b; cat b", "ln -s /etc/passwd l; readlink l",
		"ln -s ../../../../../../etc l2; ls -l l2", "ln b hard && stat -c %h b hard && rm b && cat hard", "mv -T g e", "mv -T e g", "mv -T g e",
		"chmod 4711 hard; stat -c '%a %s' hard", "chown 7:8 hard; stat -c '%a %u %g' hard", "truncate -s 1000000 hard; stat -c %s hard; sha256sum hard",
		"touch -d @1000000000 hard e; stat -c %Y hard e", "mkfifo p; stat -c %F p", "mknod dev c 1 3 2>/dev/null || true; rm -f dev",
		"exec 3<e/c; rm e/c; sha256sum <&3; stat -L -c %s /proc/self/fd/3", "exec 3<>t; rm t; echo abc >&3; chmod 600 /proc/self/fd/3; stat -L -c '%s %a' /proc/self/fd/3",
		"dd if=/dev/zero of=z bs=1000 count=300 conv=notrunc,fsync status=none; stat -c %s z; sha256sum z", "fallocate -l 5000 al; stat -c %s al",
		"umask 077; mkdir u; echo > u/f; stat -c %a u u/f", "chmod 2775 n; mkdir n/s; touch n/f; stat -c '%a %u %g' n/s n/f",
		"setpriv --reuid 1000 --regid 1000 --clear-groups touch forbidden", "chmod 777 . && setpriv --reuid 1000 --regid 1001 --clear-groups sh -c 'echo > mine; mkdir dir' && stat -c '%u %g %a' mine dir",
		"setpriv --reuid 1000 --regid 1000 --clear-groups chmod 600 hard", "cp -a n c && ls -lR c | wc -l", "rm -r n c; ls", "flock hard echo locked",
		"for i in $(seq 300); do : > f$i; done; ls | wc -l; rm f*; ls", "touch $(printf %0300d 0)",
		"python3 -c 'import os; os.rename(\"hard\", \"z\")'; ls",
	} {
		run := func(dir string) string {
			cmd := exec.Command("sh", "-c", script)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			return fmt.Sprintf("%s%v", out, err)
		}
		if got, want := run(w.at), run(local); got != want {
			t.Errorf("%s: got %s, want %s", script, got, want)
		}
	}
	tree := func(dir string) string {
		cmd := exec.Command("sh", "-c", "find . -printf '%p %y %m %s %l %n %U %G\\n' | grep -v '^. d' | sed 's/ d \\([0-9]*\\) [0-9]* / d \\1 /' | sort; find . -type f | sort | xargs sha256sum")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return fmt.Sprintf("%s%v", out, err)
	}
	if got, want := tree(w.at), tree(local); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got, want := tree(w.place), tree(local); got != want {
		t.Errorf("placeholder: got %s\nwant %s", got, want)
	}
}

// Many readers read everything while it arrives.
func TestManyReaders(t *testing.T) {
	files := []any{"d", -1}
	const most = 400_000
	for i := range 40 {
		files = append(files, fmt.Sprintf("d/%d", i), i*most/40)
	}
	content := pack(t, files...)
	from := newArriving(content)
	w := start(t, content, from)
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			chance := rand.New(rand.NewPCG(uint64(i), 0))
			for range 60 {
				file := 1 + chance.IntN(39)
				size := file * most / 40
				off := chance.IntN(size)
				wantPart(t, fmt.Sprintf("%s/%d", w.at, file), int64(off), random(size)[off:min(size, off+chance.IntN(50_000))])
			}
		})
	}
	for upTo := 0; upTo < len(content); upTo += 100_000 {
		from.release(upTo)
	}
	from.release(len(content))
	group.Wait()
	if err := <-w.done; err != nil {
		t.Error(err)
	}
}

// A guest exchanges a folder with a link that leads outside, all the time: nothing outside is found or changed.
func TestLinkInMotion(t *testing.T) {
	content := pack(t, "d", -1, "d/e", -1, "d/e/x", 10, "d/last", 10)
	w := start(t, content, whole(content))
	if err := <-w.done; err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	if err := errors.Join(os.WriteFile(outside+"/x", []byte("secret"), 0o600), os.WriteFile(outside+"/y", []byte("secret"), 0o600), os.Symlink(outside, w.place+"/l")); err != nil {
		t.Fatal(err)
	}
	dir, err := unix.Open(w.at+"/e", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	// Beside the server, which takes the folder for a folder all the time.
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, w.place+"/e", unix.AT_FDCWD, w.place+"/l", unix.RENAME_EXCHANGE)
			}
		}
	}()
	found := 0
	for i := range 3000 {
		if fd, err := unix.Openat(dir, "x", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
			p := make([]byte, 10)
			if n, err := unix.Pread(fd, p, 0); err == nil {
				if found++; strings.HasPrefix(string(p[:n]), "secret") {
					t.Fatal("a file outside is read")
				}
			}
			unix.Close(fd)
		}
		_ = unix.Unlinkat(dir, "y", 0)
		name := fmt.Sprint("new", i)
		_ = unix.Mkdirat(dir, name, 0o755)
		_ = unix.Symlinkat("x", dir, name+"l")
		_ = unix.Fchmodat(dir, "x", 0o666, 0)
	}
	close(stop)
	<-done
	entries, err := os.ReadDir(outside)
	info, statErr := os.Lstat(outside + "/x")
	if err != nil || len(entries) != 2 || statErr != nil || info.Mode() != 0o600 {
		t.Errorf("outside there are %v, %v, %v", entries, err, info)
	}
	if found == 0 {
		t.Error("nothing was ever read, so nothing is tested")
	}
}
