package sandbox

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// pipe returns both ends of a pipe.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return r, w
}

func buildMover(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mover")
	if text, err := exec.Command("gcc", "-static", "-o", path, "testdata/mover/main.c").CombinedOutput(); err != nil {
		t.Fatalf("build the mover: %v\n%s", err, text)
	}
	return path
}

// launchMover launches testdata/mover in place of a worker, and returns when it is in namespaces of its own.
func launchMover(t *testing.T, mover string, spec *specs.Spec, flags int) Child {
	t.Helper()
	input, hold := pipe(t)
	told, output := pipe(t)
	s, err := New(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.MountRootfs(nil, spec.Root, ""); err != nil {
		t.Fatal(err)
	}
	child, err := s.Launch(t.Context(), Launch{
		Spec: spec, Process: spec.Process, Worker: open(t, mover), Argv: []string{"mover", fmt.Sprint(flags)},
		Files: []*os.File{input, output, open(t, os.DevNull)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		hold.Close()
		end(t, child)
	})
	output.Close()
	if line, err := bufio.NewReader(told).ReadString('\n'); line != "0\n" {
		t.Fatalf("the mover says %q, %v", line, err)
	}
	return child
}

// Join refuses a worker that has left the namespaces in which it was started: the worker then controls where paths
// lead. A new mount namespace is detected even if the kernel has reused the number of the old one.
func TestJoinRefusesAWorkerThatHasMoved(t *testing.T) {
	mover := buildMover(t)
	for _, c := range []struct {
		flags int
		left  string // empty if Join accepts the worker
	}{
		{unix.CLONE_NEWUSER, ""},
		{unix.CLONE_NEWUSER | unix.CLONE_NEWPID, ""}, // changes only its children's pid namespace
		{unix.CLONE_NEWUSER | unix.CLONE_NEWNS, "mount"},
		{unix.CLONE_NEWUSER | unix.CLONE_NEWIPC, "ipc"},
		{unix.CLONE_NEWUSER | unix.CLONE_NEWUTS, "uts"},
		{unix.CLONE_NEWUSER | unix.CLONE_NEWNET, "network"},
		{unix.CLONE_NEWUSER | unix.CLONE_NEWCGROUP, "cgroup"},
	} {
		t.Run(c.left, func(t *testing.T) {
			spec := probed(t)
			spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"})
			spec.Root.Readonly = false
			child := launchMover(t, mover, spec, c.flags)
			mounted := MountCgroups(child, spec, map[string]string{"": t.TempDir()})
			s, err := Join(child)
			if err == nil {
				defer s.Close()
			}
			for _, err := range []error{err, mounted} {
				if c.left == "" && err != nil {
					t.Error(err)
				}
				if c.left != "" && (err == nil || !strings.Contains(err.Error(), "has left the "+c.left+" namespace")) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

// Join refuses an exec: Launch has not recorded its mount namespace.
func TestJoinOfAnExec(t *testing.T) {
	spec := probed(t)
	container := launchMover(t, buildMover(t), spec, 0)
	input, hold := pipe(t)
	child, err := launchBusybox(t.Context(), t, spec, &container, Launch{}, input, "cat")
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, child)
	defer hold.Close()
	if s, err := Join(child); err == nil || !strings.Contains(err.Error(), "not launched in a new sandbox") {
		t.Errorf("got %v, %v", s, err)
	}
}
