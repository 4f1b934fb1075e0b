package mount

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testbucket"
)

// A reader that is killed ends at once, although the store does not answer, and so does the server.
func TestKilled(t *testing.T) {
	store := testbucket.Start(t)
	b := store.Bucket(t)
	info := testbucket.Put(t, b, "key", random(1<<20))
	gate := make(chan struct{})
	defer close(gate)
	var waiting atomic.Int64
	b = store.Front(t, b, func(w http.ResponseWriter, r *http.Request) bool {
		waiting.Add(1)
		select {
		case <-gate:
		case <-r.Context().Done():
		}
		return false
	})
	target, _ := mountFile(t, File{Object: newCache(t, 8<<20).Open(b, info)}, slog.Default())
	for _, flags := range []string{"", "direct"} {
		for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
			cmd := exec.Command("dd", "if="+target, "of=/dev/null", "bs=4096", "skip=100", "iflag="+flags)
			if flags == "" {
				cmd.Args = cmd.Args[:len(cmd.Args)-1]
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for waiting.Load() == 0 || !reads(t, cmd.Process.Pid, target) {
				time.Sleep(time.Millisecond)
			}
			begin := time.Now()
			_ = cmd.Process.Signal(signal)
			_ = cmd.Wait()
			if took := time.Since(begin); took > 2*time.Second {
				t.Errorf("dd %s ends %v after signal %v", flags, took, signal)
			}
		}
	}
}

// reads reports whether a process has the file open and sleeps.
func reads(t *testing.T, pid int, file string) bool {
	t.Helper()
	open, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", pid))
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	state := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])[0]
	return open == file && (string(state) == "S" || string(state) == "D")
}

// Close ends reads that wait for the store.
func TestClosed(t *testing.T) {
	store := testbucket.Start(t)
	b := store.Bucket(t)
	info := testbucket.Put(t, b, "key", random(1<<20))
	asked := make(chan struct{}, 100)
	b = store.Front(t, b, func(w http.ResponseWriter, r *http.Request) bool {
		asked <- struct{}{}
		<-r.Context().Done()
		return true
	})
	target, s := mountFile(t, File{Object: newCache(t, 8<<20).Open(b, info)}, slog.Default())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "cat", target)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || ctx.Err() != nil {
		t.Errorf("cat: %v, %v", err, ctx.Err())
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// What a program reads is right whatever the network does.
func TestFaults(t *testing.T) {
	store := testbucket.Start(t)
	b := store.Bucket(t)
	content := random(20<<20 + 5)
	info := testbucket.Put(t, b, "key", content)
	b = store.Front(t, b, func(w http.ResponseWriter, r *http.Request) bool {
		switch rand.IntN(12) {
		case 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, "<Error><Code>InternalError</Code></Error>")
		case 2:
			panic(http.ErrAbortHandler)
		default:
			return false
		}
		return true
	})
	target, _ := mountFile(t, File{Object: newCache(t, 4<<20).Open(b, info)}, slog.Default())
	if got, err := exec.Command("cat", target).Output(); err != nil || !bytes.Equal(got, content) {
		t.Errorf("cat: %d bytes, %v", len(got), err)
	}
	if got, err := exec.Command("tac", "-s", "\n", target).Output(); err != nil || len(got) != len(content) {
		t.Errorf("tac: %d bytes, %v", len(got), err)
	}
}

// An error of the store is EIO.
func TestDenied(t *testing.T) {
	store := testbucket.Start(t)
	b := store.Bucket(t)
	info := testbucket.Put(t, b, "key", random(1<<20))
	b = store.Front(t, b, func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "<Error><Code>AccessDenied</Code></Error>")
		return true
	})
	var log bytes.Buffer
	target, s := mountTree(t, Tree{Files: map[string]File{"a": {Object: newCache(t, 4<<20).Open(b, info)}}}, slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		out, err := exec.Command("cat", filepath.Join(target, "a")).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("Input/output error")) {
			t.Errorf("cat: %v: %s", err, out)
		}
	}
	s.Close()
	if bytes.Count(log.Bytes(), []byte("\n")) != 1 || !bytes.Contains(log.Bytes(), []byte("code=AccessDenied")) {
		t.Errorf("logged %s", &log)
	}
}
