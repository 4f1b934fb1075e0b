package output

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testbucket"
	"github.com/wasmshim/containerd-shim-wasm/artifact/mount"
)

// Folders that are nested without end are an error, and take bounded memory.
func TestDeepFolders(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	for name, wanted := range map[string]Output{
		"folder":  {Name: "all", Path: ".", Key: "all/"},
		"archive": {Name: "all", Path: ".", Key: "all.tgz", Archive: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := serve(t, b, room, wanted)
			w.task(func(dir string) {
				fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				for range 1000 {
					if err != nil {
						t.Fatal(err)
					}
					below := strings.Repeat("d", 250)
					if err := unix.Mkdirat(fd, below, 0o755); err != nil {
						t.Fatal(err)
					}
					next, openErr := unix.Openat(fd, below, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
					unix.Close(fd)
					fd, err = next, openErr
				}
				unix.Close(fd)
			})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := w.finish(t.Context(), true); err == nil || !strings.Contains(err.Error(), "too deep") {
				t.Errorf("got %v", err)
			}
			runtime.ReadMemStats(&after)
			if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 200 {
				t.Errorf("it has allocated %d MiB", n)
			}
		})
	}
}

// A file cannot be larger than what S3 takes, however little of it is written.
func TestSparseFile(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	w := serve(t, b, room, Output{Name: "x", Path: "x", Key: "x"})
	w.task(func(dir string) {
		f := open(t, dir+"/x", unix.O_WRONLY|unix.O_CREAT)
		const most = maxParts * mount.PartSize
		for _, size := range []int64{most + 1, 1 << 50, 1<<63 - 1} {
			if err := unix.Ftruncate(f.fd, size); err != syscall.EFBIG {
				t.Errorf("truncate to %d: %v", size, err)
			}
			if _, err := unix.Pwrite(f.fd, []byte("x"), size-1); size-1 >= most && err != syscall.EFBIG {
				t.Errorf("write at %d: %v", size-1, err)
			}
		}
		if err := unix.Fallocate(f.fd, 0, most, 1); err != syscall.EFBIG {
			t.Errorf("allocate: %v", err)
		}
		f.write([]byte("small"), 0)
		f.close()
	})
	if err := w.finish(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if got := w.stored("x"); string(got) != "small" {
		t.Errorf("stored %d bytes", len(got))
	}
}

// Files without end leave the process descriptors for what else it does.
func TestManyFiles(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = 1024
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	})
	b := testbucket.Start(t).Bucket(t)
	w := serve(t, b, room, Output{Name: "all", Path: ".", Key: "all/"})
	made := 0
	w.task(func(dir string) {
		for i := range 1000 {
			fd, err := unix.Open(fmt.Sprintf("%s/%d", dir, i), unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
			if err == syscall.ENOSPC {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			made++
			unix.Close(fd)
		}
	})
	if made < 400 || made > 512 {
		t.Errorf("%d files were made", made)
	}
	if err := w.finish(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if w.stored("all/0") == nil || w.stored(fmt.Sprint("all/", made-1)) == nil {
		t.Error("not all files are stored")
	}
}

// What a failed task leaves is stored each for itself.
func TestAlwaysEachForItself(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	w := serve(t, b, room, Output{Name: "report", Path: "report", Key: "report", Always: true}, Output{Name: "log", Path: "log", Key: "log", Always: true})
	w.task(func(dir string) { write(t, dir+"/log", []byte("why")) })
	if err := w.finish(t.Context(), false); err == nil || !strings.Contains(err.Error(), "store output report: the task has not written it") {
		t.Errorf("got %v", err)
	}
	if got := w.stored("log"); string(got) != "why" {
		t.Errorf("stored %q", got)
	}
}

// An upload that the store has completed without saying so is no failure.
func TestLostAnswer(t *testing.T) {
	store := testbucket.Start(t)
	own := store.Bucket(t)
	var lost atomic.Int64
	b := store.Front(t, own, func(answer http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || !r.URL.Query().Has("uploadId") {
			return false
		}
		lost.Add(1)
		request, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+store.Address+r.URL.RequestURI(), r.Body)
		if err != nil {
			t.Error(err)
			return false
		}
		request.Header, request.Host, request.ContentLength = r.Header, r.Host, r.ContentLength
		if response, err := http.DefaultClient.Do(request); err != nil {
			t.Error(err)
		} else {
			response.Body.Close()
		}
		http.Error(answer, "", http.StatusServiceUnavailable)
		return true
	})
	w := serve(t, b, room, Output{Name: "x", Path: "x", Key: "x"})
	w.bucket = own
	content := noise(20 * mib)
	w.task(func(dir string) { write(t, dir+"/x", content) })
	if err := w.finish(t.Context(), true); err != nil {
		t.Error(err)
	}
	if got := w.stored("x"); !bytes.Equal(got, content) || lost.Load() == 0 {
		t.Errorf("stored %d bytes after %d lost answers", len(got), lost.Load())
	}
}

// A part that the store refuses is not tried again before the end.
func TestRefusedParts(t *testing.T) {
	store := testbucket.Start(t)
	own := store.Bucket(t)
	var refused atomic.Int64
	b := store.Front(t, own, func(answer http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && r.URL.Query().Has("partNumber") {
			refused.Add(1)
			http.Error(answer, "<Error><Code>AccessDenied</Code></Error>", http.StatusForbidden)
			return true
		}
		return false
	})
	w := serve(t, b, room, Output{Name: "x", Path: "x", Key: "x"})
	w.bucket = own
	w.task(func(dir string) { write(t, dir+"/x", noise(100*mib)) })
	if err := w.finish(t.Context(), true); err == nil || !strings.Contains(err.Error(), "x") {
		t.Errorf("got %v", err)
	}
	if n := refused.Load(); n > 2*atOnce {
		t.Errorf("%d parts were sent", n)
	}
	if err := w.finish(t.Context(), true); err != nil { // a second call is a no-op
		t.Error(err)
	}
}
