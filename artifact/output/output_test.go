package output

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testbucket"
	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testmount"
	"github.com/wasmshim/containerd-shim-wasm/artifact/mount"
	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
)

func TestMain(m *testing.M) {
	testmount.Main()
	os.Exit(m.Run())
}

// world is a mount with outputs and their bucket.
type world struct {
	*Outputs
	t      *testing.T
	dir    string
	bucket object.Bucket

	mu    sync.Mutex
	begun []Upload
	ended []Upload
}

// serve serves outputs, to which it adds the bucket.
func serve(t *testing.T, b object.Bucket, limit int64, wanted ...Output) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), bucket: b}
	spool, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(spool.Name()); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		spool.Close()
	})
	for i := range wanted {
		wanted[i].Client, wanted[i].Bucket = b.Client, b.Name
	}
	w.Outputs = New(wanted, Options{
		Spool: spool, Room: mount.NewRoom(limit), Mode: 0o755, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Noted: func(u Upload, ended bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if ended {
				w.ended = append(w.ended, u)
			} else {
				w.begun = append(w.begun, u)
			}
		},
	})
	device := testmount.Attach(t, w.dir, unix.S_IFDIR|0o755)
	t.Cleanup(func() {
		_ = unix.Unmount(w.dir, unix.MNT_DETACH)
		if err := w.Abort(); err != nil {
			t.Error(err)
		}
		w.expectNoUploads()
	})
	if err := w.Serve(device); err != nil {
		t.Fatal(err)
	}
	return w
}

// task runs the task, which ends with its mount.
func (w *world) task(write func(dir string)) {
	w.t.Helper()
	write(w.dir)
	if err := unix.Unmount(w.dir, unix.MNT_DETACH); err != nil {
		w.t.Error(err)
	}
}

func (w *world) finish(ctx context.Context, succeeded bool) error {
	return Finish(ctx, []*Outputs{w.Outputs}, succeeded)
}

// open opens a file without Go's poller, which would hold a lock that the server needs.
func open(t *testing.T, name string, flags int) *file {
	t.Helper()
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		t.Fatal(&os.PathError{Op: "open", Path: name, Err: err})
	}
	return &file{t, fd}
}

type file struct {
	t  *testing.T
	fd int
}

func (f *file) write(p []byte, off int64) {
	f.t.Helper()
	for len(p) > 0 {
		n, err := unix.Pwrite(f.fd, p, off)
		if err != nil {
			f.t.Fatal(err)
		}
		p, off = p[n:], off+int64(n)
	}
}

func (f *file) close() {
	f.t.Helper()
	if err := unix.Close(f.fd); err != nil {
		f.t.Error(err)
	}
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	f := open(t, name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	f.write(content, 0)
	f.close()
}

// stored returns an object, nil if there is none.
func (w *world) stored(key string) []byte {
	w.t.Helper()
	body, _, _, err := w.bucket.Client.GetObject(w.t.Context(), w.bucket.Name, key, minio.GetObjectOptions{})
	var response minio.ErrorResponse
	if errors.As(err, &response) && response.Code == "NoSuchKey" {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	defer body.Close()
	content, err := io.ReadAll(body)
	if err != nil {
		w.t.Fatal(err)
	}
	return content
}

// expectNoUploads checks that the store has no upload that has not ended, and that the end of each was noted.
func (w *world) expectNoUploads() {
	w.t.Helper()
	left, err := w.bucket.Client.ListMultipartUploads(context.Background(), w.bucket.Name, "", "", "", "", 100)
	if err != nil || len(left.Uploads) > 0 {
		w.t.Errorf("uploads left in the store: %v, %v", left.Uploads, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, u := range w.begun {
		if !slices.Contains(w.ended, u) {
			w.t.Errorf("the end of %v was not noted", u)
		}
	}
}

func noise(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.Read(p)
	return p
}

const (
	mib  = 1 << 20
	room = 1 << 30
)

// Files of all sizes are stored as they were written, with others in the same mount left out, and are not visible before.
func TestFiles(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	for name, size := range map[string]int{"empty": 0, "small": 10, "a part": 16 * mib, "large": 40*mib + 5} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, b, room, Output{Name: "x", Path: "x", Key: name + "/x"}, Output{Name: "y", Path: "y", Key: name + "/y"})
			content := noise(size)
			w.task(func(dir string) {
				write(t, dir+"/x", content)
				write(t, dir+"/y", []byte("second"))
				write(t, dir+"/z", []byte("not stored"))
			})
			if w.stored(name+"/x") != nil {
				t.Error("it is visible before the task has ended")
			}
			if err := w.finish(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			if got := w.stored(name + "/x"); !bytes.Equal(got, content) || got == nil {
				t.Errorf("stored %d bytes, want %d", len(got), len(content))
			}
			if got := w.stored(name + "/y"); string(got) != "second" {
				t.Errorf("stored %q", got)
			}
		})
	}
}

// Parts of a large file are sent while the task goes on.
func TestPartsAreSentMeanwhile(t *testing.T) {
	var parts atomic.Int64
	sent := make(chan struct{}, 100)
	store := testbucket.Start(t)
	own := store.Bucket(t)
	b := store.Front(t, own, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && r.URL.Query().Has("partNumber") {
			parts.Add(1)
			sent <- struct{}{}
		}
		return false
	})
	w := serve(t, b, room, Output{Name: "x", Path: "x", Key: "x"})
	content := noise(50 * mib)
	w.task(func(dir string) {
		f := open(t, dir+"/x", unix.O_WRONLY|unix.O_CREAT)
		for off := 0; off < len(content); off += mib {
			f.write(content[off:off+mib], int64(off))
		}
		for range 3 {
			<-sent // or the test's own limit
		}
		f.write([]byte("changed"), 20*mib)
		f.close()
	})
	copy(content[20*mib:], "changed")
	if err := w.finish(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	// One was changed, and the last is not whole. The third may have been on its way when the task ended.
	if n := parts.Load(); n < 5 || n > 6 {
		t.Errorf("%d parts were sent, want 5", n)
	}
	if got := w.stored("x"); !bytes.Equal(got, content) {
		t.Errorf("stored other content, %d bytes", len(got))
	}
}

// Whatever a task does to a file, what is stored is what it has left.
func TestRandomWrites(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := mathrand.New(mathrand.NewPCG(seed, 1))
			w := serve(t, b, room, Output{Name: "x", Path: "x", Key: fmt.Sprint("x", seed)})
			local := filepath.Join(t.TempDir(), "x")
			w.task(func(dir string) {
				for range 40 {
					kind, off, size, p := r.IntN(10), r.Int64N(70*mib), r.Int64N(70*mib), noise(1+r.IntN(3*mib))
					for _, at := range []string{local, dir + "/x"} {
						switch kind {
						case 0:
							f := open(t, at, unix.O_WRONLY|unix.O_CREAT)
							if err := unix.Ftruncate(f.fd, size); err != nil {
								t.Error(err)
							}
							f.close()
						case 1: // as programs replace a file
							write(t, at+".new", p)
							if err := unix.Rename(at+".new", at); err != nil {
								t.Error(err)
							}
						case 2:
							_ = unix.Unlink(at)
							write(t, at, p)
						default:
							f := open(t, at, unix.O_WRONLY|unix.O_CREAT)
							f.write(p, off)
							f.close()
						}
					}
				}
			})
			if err := w.finish(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(local)
			if err != nil {
				t.Fatal(err)
			}
			if got := w.stored(fmt.Sprint("x", seed)); !bytes.Equal(got, want) {
				t.Errorf("stored %d bytes, want %d, or others", len(got), len(want))
			}
		})
	}
}

// The outputs of a task that fails are not stored, unless they ask for it.
func TestFailedTask(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	w := serve(t, b, room, Output{Name: "x", Path: "x", Key: "x"}, Output{Name: "log", Path: "log", Key: "log", Always: true})
	w.task(func(dir string) {
		write(t, dir+"/x", noise(20*mib))
		write(t, dir+"/log", []byte("why"))
	})
	if err := w.finish(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if w.stored("x") != nil || string(w.stored("log")) != "why" {
		t.Errorf("stored %d bytes of x, and log %q", len(w.stored("x")), w.stored("log"))
	}
}

// A file that is missing, or is none, is an error, and nothing else is stored.
func TestMissing(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	for name, tc := range map[string]struct {
		write func(dir string)
		want  string
	}{
		"missing": {func(string) {}, "store output x: the task has not written it"},
		"folder":  {func(dir string) { _ = unix.Mkdir(dir+"/x", 0o755) }, "it is not a regular file"},
		"link":    {func(dir string) { _ = unix.Symlink("y", dir+"/x") }, "it is not a regular file"},
		"fifo":    {func(dir string) { _ = unix.Mkfifo(dir+"/x", 0o644) }, "it is not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, b, room, Output{Name: "x", Path: "x", Key: "x"}, Output{Name: "y", Path: "y", Key: "y"})
			w.task(func(dir string) {
				write(t, dir+"/y", []byte("secret"))
				tc.write(dir)
			})
			if err := w.finish(t.Context(), true); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want something with %q", err, tc.want)
			}
			if w.stored("x") != nil || w.stored("y") != nil {
				t.Error("something was stored")
			}
		})
	}
}

// A folder becomes objects, and links in it are left out; or one tarball, with them.
func TestFolders(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	w := serve(t, b, room, Output{Name: "all", Path: ".", Key: "all/"}, Output{Name: "packed", Path: ".", Key: "packed.tgz", Archive: true})
	large := noise(18 * mib)
	w.task(func(dir string) {
		for _, name := range []string{"/d", "/d/e", "/empty"} {
			if err := unix.Mkdir(dir+name, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		write(t, dir+"/a", []byte("a"))
		write(t, dir+"/d/e/large", large)
		if err := unix.Symlink("/etc/passwd", dir+"/link"); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkfifo(dir+"/fifo", 0o644); err != nil {
			t.Fatal(err)
		}
	})
	if err := w.finish(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if string(w.stored("all/a")) != "a" || !bytes.Equal(w.stored("all/d/e/large"), large) || w.stored("all/link") != nil {
		t.Error("the folder has other objects")
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(w.stored("packed.tgz")))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for archive := tar.NewReader(unzipped); ; {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name+h.Linkname)
		if content, err := io.ReadAll(archive); h.Name == "packed/d/e/large" && !bytes.Equal(content, large) {
			t.Errorf("%s has other content: %v", h.Name, err)
		}
	}
	if want := []string{"packed/a", "packed/d/", "packed/d/e/", "packed/d/e/large", "packed/empty/", "packed/link/etc/passwd"}; !slices.Equal(names, want) {
		t.Errorf("the tarball has %q, want %q", names, want)
	}
}

// A folder whose names cannot be keys is an error.
func TestHostileNames(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	deep := strings.Repeat("d", 250)
	for name, path := range map[string][]string{
		"control character": {"a\nb"}, "not UTF-8": {"a\xff"}, "too long": {deep, deep + "/" + deep, deep + "/" + deep + "/" + deep, deep + "/" + deep + "/" + deep + "/" + deep, deep + "/" + deep + "/" + deep + "/" + deep + "/x"},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, b, room, Output{Name: "all", Path: ".", Key: strings.Repeat("p", 30) + "/"})
			w.task(func(dir string) {
				for _, p := range path[:len(path)-1] {
					if err := unix.Mkdir(dir+"/"+p, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				write(t, dir+"/"+path[len(path)-1], []byte("x"))
			})
			if err := w.finish(t.Context(), true); err == nil || !strings.Contains(err.Error(), "cannot be a key") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// What is not stored yet takes no more room than it may.
func TestNoRoom(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	w := serve(t, b, 8*mib, Output{Name: "x", Path: "x", Key: "x"})
	w.task(func(dir string) {
		f := open(t, dir+"/x", unix.O_WRONLY|unix.O_CREAT)
		var n int
		var err error
		for p := noise(mib); err == nil && n < 20*mib; {
			var m int
			m, err = unix.Pwrite(f.fd, p, int64(n))
			n += max(m, 0)
		}
		if err != syscall.ENOSPC || n < 6*mib || n > 10*mib {
			t.Errorf("after %d bytes: %v", n, err)
		}
		if err := unix.Ftruncate(f.fd, 0); err != nil {
			t.Error(err)
		}
		f.write([]byte("fits"), 0)
		f.close()
	})
	if err := w.finish(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := w.stored("x"); string(got) != "fits" {
		t.Errorf("stored %d bytes", len(got))
	}
}

// An archive takes its room from that of the files that it packs, and gives it back.
func TestArchiveTakesRoom(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	for name, tc := range map[string]struct {
		room int64
		want string // in the error
	}{
		"enough":   {14 * mib, ""},
		"too much": {9 * mib, "the archive and the files in it have more than the"},
	} {
		w := serve(t, b, tc.room, Output{Name: "all", Path: ".", Key: name + ".tgz", Archive: true})
		w.task(func(dir string) { write(t, dir+"/x", noise(6*mib)) })
		err := w.finish(t.Context(), true)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v", name, err)
		}
		if !w.Room.Reserve(tc.room) {
			t.Errorf("%s: after the end not all of the room is free", name)
		}
	}
}

// After the end nothing can be written.
func TestNothingIsWrittenAfterTheEnd(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	w := serve(t, b, room, Output{Name: "x", Path: "x", Key: "x"})
	f := open(t, w.dir+"/x", unix.O_WRONLY|unix.O_CREAT)
	f.write([]byte("whole"), 0)
	w.server.Freeze()
	if _, err := unix.Pwrite(f.fd, []byte("late"), 0); err != syscall.EROFS {
		t.Errorf("a late write: %v", err)
	}
	if err := unix.Mkdir(w.dir+"/d", 0o755); err != syscall.EROFS {
		t.Errorf("a late folder: %v", err)
	}
	f.close()
	if err := w.finish(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := w.stored("x"); string(got) != "whole" {
		t.Errorf("stored %q", got)
	}
}

// However the store fails, an object is stored whole or not at all, and no upload is left.
func TestFaults(t *testing.T) {
	store := testbucket.Start(t)
	own := store.Bucket(t)
	var stored, failed int
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			var mu sync.Mutex
			r := mathrand.New(mathrand.NewPCG(seed, 2))
			chance := 2 + r.IntN(6)
			var healed atomic.Bool
			b := store.Front(t, own, func(answer http.ResponseWriter, request *http.Request) bool {
				mu.Lock()
				kind, hit := r.IntN(4), r.IntN(chance) == 0
				mu.Unlock()
				if !hit || healed.Load() || request.Method == http.MethodDelete {
					return false
				}
				switch kind {
				case 0:
					http.Error(answer, "", http.StatusInternalServerError)
				case 1:
					http.Error(answer, "", http.StatusServiceUnavailable)
				case 2:
					http.Error(answer, "<Error><Code>AccessDenied</Code></Error>", http.StatusForbidden)
				default:
					panic(http.ErrAbortHandler) // resets the connection
				}
				return true
			})
			key := fmt.Sprint("x", seed)
			w := serve(t, b, room, Output{Name: "x", Path: "x", Key: key}, Output{Name: "y", Path: "y", Key: key + "y"})
			w.bucket = own
			content := noise(36 * mib)
			w.task(func(dir string) {
				write(t, dir+"/x", content)
				write(t, dir+"/y", content[:100])
			})
			err := w.finish(t.Context(), true)
			healed.Store(true)
			got := w.stored(key)
			if got != nil && !bytes.Equal(got, content) {
				t.Errorf("half an object of %d bytes", len(got))
			}
			if err == nil && (got == nil || w.stored(key+"y") == nil) {
				t.Error("it was said to be stored, and is not")
			}
			if err == nil {
				stored++
			} else {
				failed++
			}
			w.expectNoUploads()
		})
	}
	if stored == 0 || failed == 0 {
		t.Errorf("stored %d times, failed %d times: the test shows less than it should", stored, failed)
	}
}

// An output that cannot be stored keeps those of other mounts from being seen, too.
func TestOutputsOfSeveralMountsAreOne(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	first := serve(t, b, room, Output{Name: "x", Path: "x", Key: "first"})
	second := serve(t, b, room, Output{Name: "y", Path: "y", Key: "second"})
	first.task(func(dir string) { write(t, dir+"/x", noise(36*mib)) })
	second.task(func(string) {}) // it has not written y
	err := Finish(t.Context(), []*Outputs{first.Outputs, second.Outputs}, true)
	if err == nil || !strings.Contains(err.Error(), "store output y: the task has not written it") {
		t.Errorf("got %v", err)
	}
	if first.stored("first") != nil {
		t.Error("the output of the first mount was stored")
	}
}

// A process that is killed leaves an upload that another one can abort.
func TestAbortLeft(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	id, err := b.Client.NewMultipartUpload(t.Context(), b.Name, "x", minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // it may have been aborted before
		if err := Abort(t.Context(), b.Client, Upload{b.Name, "x", id}); err != nil {
			t.Error(err)
		}
	}
	(&world{t: t, bucket: b}).expectNoUploads()
}

// A call that is called off ends soon, and leaves nothing.
func TestFinishIsCalledOff(t *testing.T) {
	store := testbucket.Start(t)
	own := store.Bucket(t)
	reached, released := make(chan struct{}, 100), make(chan struct{})
	b := store.Front(t, own, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			reached <- struct{}{}
			<-released
		}
		return false
	})
	t.Cleanup(func() { close(released) })
	w := serve(t, b, room, Output{Name: "x", Path: "x", Key: "x"})
	w.bucket = own
	w.task(func(dir string) { write(t, dir+"/x", noise(mib)) })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-reached
		cancel()
	}()
	if err := w.finish(ctx, true); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if w.stored("x") != nil {
		t.Error("it was stored")
	}
}
