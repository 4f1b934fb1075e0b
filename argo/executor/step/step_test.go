package step

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/taskresult"
)

// reports records what is reported.
type reports struct {
	mu        sync.Mutex
	all       []taskresult.Result
	completed int
}

func (r *reports) Report(_ context.Context, result taskresult.Result) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, result)
	return nil
}

func (r *reports) Complete(context.Context) error {
	r.completed++
	return nil
}

const withParameter = `{"name":"t","outputs":{"parameters":[{"name":"p","valueFrom":{"path":"/tmp/p"}}]},"container":{"volumeMounts":[{"name":"v","mountPath":"/v"}]}}`

// newStep returns a step whose container's files are below a new folder.
func newStep(t *testing.T, text string) (*step, *reports) {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{argo.VolumePath + "/ctr/main", argo.VolumePath + "/outputs/parameters/tmp", mainFiles + "/v", "/dev"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := executor.ParseTemplate([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	told := &reports{}
	env := map[string]string{"ARGO_INCLUDE_SCRIPT_OUTPUT": "true"}
	pod := Pod{Root: root, Log: slog.New(slog.DiscardHandler), Getenv: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}
	return &step{Pod: pod, volume: volume{root + argo.VolumePath}, template: parsed, client: told}, told
}

// A container of the pod plants something where a file is expected: it is neither followed nor waited for, and
// nothing of it is reported.
func TestPlanted(t *testing.T) {
	for name, plant := range map[string]func(t *testing.T, path string) error{
		"fifo":      func(t *testing.T, path string) error { return unix.Mkfifo(path, 0o666) },
		"directory": func(t *testing.T, path string) error { return os.Mkdir(path, 0o755) },
		"device": func(t *testing.T, path string) error {
			return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))
		},
		"link": func(t *testing.T, path string) error {
			secret := filepath.Join(t.TempDir(), "token")
			return errors.Join(os.WriteFile(secret, []byte("secret"), 0o644), os.Symlink(secret, path))
		},
		"link in the volume": func(t *testing.T, path string) error {
			return errors.Join(os.WriteFile(path+".other", []byte("secret"), 0o644), os.Symlink(path+".other", path))
		},
		"huge file": func(t *testing.T, path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<40))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, told := newStep(t, withParameter)
			if err := plant(t, s.volume.path+"/outputs/parameters/tmp/p"); err != nil {
				t.Fatal(err)
			}
			if name != "huge file" {
				if err := plant(t, s.volume.path+"/ctr/main/stdout"); err != nil {
					t.Fatal(err)
				}
				if err := s.captureResult(); err == nil {
					t.Error("it was taken for a result")
				}
			}
			if err := s.saveParameters(); err == nil {
				t.Error("it was taken for a parameter")
			}
			if err := s.reportOutputs(t.Context()); err != nil {
				t.Fatal(err)
			}
			if text := string(told.all[0].Outputs); strings.Contains(text, "secret") || strings.Contains(text, "value\"") {
				t.Errorf("reported %s", text)
			}
		})
	}
}

// A link on a volume of the main container leads where it leads there, and never out of the volumes.
func TestLinkOnAVolume(t *testing.T) {
	for target, want := range map[string]string{
		"/v/other": "value", "other": "value", "/etc/passwd": "", "../../../../etc/passwd": "", "/proc/self/root/etc/passwd": "",
	} {
		s, _ := newStep(t, strings.ReplaceAll(withParameter, "/tmp/p", "/v/p"))
		if err := errors.Join(os.WriteFile(s.Root+mainFiles+"/v/other", []byte("value\n"), 0o644), os.Symlink(target, s.Root+mainFiles+"/v/p")); err != nil {
			t.Fatal(err)
		}
		err := s.saveParameters()
		var list []struct{ Value string }
		if jsonErr := json.Unmarshal(s.template.Outputs["parameters"], &list); jsonErr != nil {
			t.Fatal(jsonErr)
		}
		if list[0].Value != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v", target, list[0].Value, err)
		}
	}
}

// The end of a container is noticed whenever the folders come, and a planted exit code is none.
func TestAwait(t *testing.T) {
	s, _ := newStep(t, `{"containerSet":{"containers":[{"name":"main"},{"name":"late"}]}}`)
	done := make(chan error, 1)
	go func() { done <- s.await(t.Context(), s.template.MainContainers()) }()
	if err := errors.Join(os.WriteFile(s.volume.path+"/ctr/main/exitcode", []byte("0"), 0o644), os.Mkdir(s.volume.path+"/ctr/late", 0o755),
		os.WriteFile(s.volume.path+"/ctr/late/exitcode", []byte("0"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	s, _ = newStep(t, withParameter)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.await(ctx, []string{"main"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// Parameters that are each short enough are too long together.
func TestParametersTogether(t *testing.T) {
	s, _ := newStep(t, strings.ReplaceAll(withParameter, `[{"name":"p","valueFrom":{"path":"/tmp/p"}}]`,
		`[{"name":"p","valueFrom":{"path":"/tmp/p"}},{"name":"q","valueFrom":{"path":"/tmp/p","default":"d"}}]`))
	file := s.volume.path + "/outputs/parameters/tmp/p"
	if err := errors.Join(os.WriteFile(file, nil, 0o644), os.Truncate(file, maxFile/2+1)); err != nil {
		t.Fatal(err)
	}
	if err := s.saveParameters(); err == nil || !strings.Contains(err.Error(), "together") {
		t.Errorf("got %v", err)
	}
}

// A node that is short of files has not ended the main container. A link that a container has planted has.
func TestSaysNothing(t *testing.T) {
	for err, nothing := range map[error]bool{
		unix.ENOENT: true, unix.EMFILE: true, unix.ENFILE: true, unix.ENOMEM: true,
		unix.ELOOP: false, unix.EAGAIN: false, unix.ENOTDIR: false, unix.EACCES: false,
	} {
		if got := saysNothing(&os.PathError{Op: "open", Path: "/p", Err: err}); got != nothing {
			t.Errorf("%v: %v", err, got)
		}
	}
}

// Folders that a neighbour moves away do not take the watches of the node's other wait containers.
func TestWatchesOfMovedFolders(t *testing.T) {
	s, _ := newStep(t, withParameter)
	w := newWatch()
	defer w.close()
	other, dir := s.volume.path+"/ctr", s.volume.path+"/ctr/main"
	for i := range 50 {
		w.add(other)
		w.add(dir)
		if err := errors.Join(os.Rename(dir, fmt.Sprint(dir, i)), os.Mkdir(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	w.add(dir)
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", w.file.Fd()))
	if n := strings.Count(string(text), "inotify wd:"); n != 2 || err != nil {
		t.Errorf("%d watches, %v", n, err)
	}
}

// A signal is left in a regular file, whatever has been planted there.
func TestSignal(t *testing.T) {
	s, _ := newStep(t, withParameter)
	if err := s.signal([]string{"main"}, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(s.volume.path + "/ctr/main/signal"); string(text) != "15" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	if err := errors.Join(os.Remove(s.volume.path+"/ctr/main/signal"), unix.Mkfifo(s.volume.path+"/ctr/main/signal", 0o666)); err != nil {
		t.Fatal(err)
	}
	if err := s.signal([]string{"main"}, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(s.volume.path + "/ctr/main/signal"); string(text) != "9" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestIsProgress(t *testing.T) {
	for line, want := range map[string]bool{"1/2": true, "0/1": true, "2/2": true, "3/2": false, "1": false, "/": false, "-1/2": false, "1/0": false, "a/b": false, "": false} {
		if got := isProgress(line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}
