package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// createContainer runs hooks as a launch does, on a thread of its own.
func createContainer(ctx context.Context, r runner, state specs.State, hooks ...specs.Hook) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		done <- r.run(ctx, "createContainer", hooks, state)
	}()
	return <-done
}

func shell(script string, args ...string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: append([]string{"sh", "-c", script, "hook"}, args...)}
}

// When a createContainer hook ends or is killed, all processes that it has started end too, in any session.
func TestCreateContainerLeavesNothing(t *testing.T) {
	called := errors.New("called off")
	for then, want := range map[string]string{"exit 0": "", "exit 3": "exit status 3", "sleep 1000": "called off"} {
		t.Run(then, func(t *testing.T) {
			fifo := filepath.Join(t.TempDir(), "says")
			if err := unix.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			said := make(chan string, 1)
			go func() {
				text, err := os.ReadFile(fifo)
				if err != nil {
					t.Error(err)
				}
				said <- strings.TrimSpace(string(text))
				if want == called.Error() {
					cancel(called)
				}
			}()
			err := createContainer(ctx, inContainer(t.TempDir()), specs.State{},
				shell(`sleep 1000 & setsid sleep 1000 & readlink /proc/self/ns/pid >"$1"; `+then, fifo))
			if err == nil && want != "" || err != nil && (want == "" || !strings.Contains(err.Error(), want)) {
				t.Fatalf("got %v, want %q", err, want)
			}
			expectNobody(t, <-said)
		})
	}
}

// expectNobody fails the test if a process is in the pid namespace.
func expectNobody(t *testing.T, namespace string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if of, err := os.Readlink(link); err == nil && of == namespace {
			t.Errorf("%s is %s still", link, namespace)
		}
	}
}

// A createContainer hook that hangs is killed, even if it has no timeout.
func TestCreateContainerHasALimit(t *testing.T) {
	second := 1
	hangs := shell("sleep 1000")
	hurries := hangs
	hurries.Timeout = &second
	patient, impatient := inContainer("/"), inContainer("/")
	if patient.limit <= 0 {
		t.Fatalf("the limit is %v", patient.limit)
	}
	impatient.limit = time.Second
	for name, c := range map[string]struct {
		runner runner
		hook   specs.Hook
	}{"timeout": {patient, hurries}, "no timeout": {impatient, hangs}} {
		err := createContainer(t.Context(), c.runner, specs.State{}, c.hook)
		if err == nil || !strings.Contains(err.Error(), "timeout of 1s") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A hook gets the state, its own environment, and the root file system as its working directory. Its environment
// has no variable that could make it load a library from there.
func TestCreateContainerIsToldWhatItNeeds(t *testing.T) {
	t.Setenv("LD_LIBRARY_PATH", "/opt/containerd/lib:") // as containerd sets it
	rootfs, told := t.TempDir(), filepath.Join(t.TempDir(), "told")
	with := shell(`cat >"$1"; test "$MARK$LD_LIBRARY_PATH" = mark && test "$(pwd)" = "$2"`, told, rootfs)
	with.Env = []string{"PATH=/usr/bin:/bin", "MARK=mark"}
	want := specs.State{Version: "1.3.0", ID: "one", Status: specs.StateCreating, Pid: 1, Bundle: "/bundle"}
	if err := createContainer(t.Context(), inContainer(rootfs), want, with, shell(`test -z "$LD_LIBRARY_PATH$HOME"`)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	var got specs.State
	if err := json.Unmarshal(text, &got); err != nil || got.ID != want.ID || got.Pid != 1 || got.Bundle != want.Bundle || got.Status != want.Status {
		t.Errorf("the state is %s, %v", text, err)
	}
}
