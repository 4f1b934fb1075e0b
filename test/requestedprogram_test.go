package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// takeOver takes the place of the program that serves one artifact: by a copy of its descriptor, which outlives it.
func (p *requestingPod) takeOver() {
	p.t.Helper()
	p.signal(unix.SIGSTOP)
	pid := p.server()
	handle, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer unix.Close(handle)
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(folder)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(folder, e.Name())); err != nil || target != "/dev/fuse" {
			continue
		}
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			p.t.Fatal(err)
		}
		if p.stolen, err = unix.PidfdGetfd(handle, number, 0); err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { unix.Close(p.stolen) })
		return
	}
	p.t.Fatalf("process %d serves nothing", pid)
}

// takeRequest takes a request of the container, which is never answered, after takeOver.
func (p *requestingPod) takeRequest() {
	p.t.Helper()
	if p.stolen == 0 {
		return
	}
	request := make([]byte, 1<<20+4096)
	for {
		_, err := unix.Read(p.stolen, request)
		if err == nil {
			return
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			p.t.Fatal(err)
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(p.stolen), Events: unix.POLLIN}}, -1); err != nil && err != unix.EINTR {
			p.t.Fatal(err)
		}
	}
}

// leaveFile leaves a file in the folder of what is written to artifacts, as a program could do that was taken over.
func (p *requestingPod) leaveFile() {
	p.t.Helper()
	folders, err := filepath.Glob(p.spool + "/*/*")
	if err != nil || len(folders) != 1 {
		p.t.Fatalf("%v, %v", folders, err)
	}
	if err := os.Mkdir(folders[0]+"/folder", 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(folders[0]+"/folder/left", nil, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// No container of a pod sees the program that serves its artifacts, even where the pod shares its processes.
func TestRequestedProgramIsOutOfSight(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		p := newRequestingPod(t, node, map[string]string{"bucket/data.csv": "data"})
		share := oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.PIDNamespace, Path: fmt.Sprintf("/proc/%d/ns/pid", p.leader.Pid())})
		k, err := p.create(p.config(), map[string]string{"x": "s3://bucket/data.csv -> /in/x"}, []string{"read", "/in/x", ",", "sleep", "1000"}, share)
		if err != nil {
			t.Fatal(err)
		}
		k.start()
		k.output.await(t, "sleeping")
		outer, shared := namespaceNumbers(t, os.Getpid()), namespaceNumbers(t, int(k.Pid()))
		if len(shared) != len(outer)+1 {
			t.Errorf("the container's process has the numbers %v", shared)
		}
		if own := namespaceNumbers(t, p.server()); len(own) != len(outer)+1 || own[len(own)-1] != 1 {
			t.Errorf("the program has the numbers %v, want it to be the first process of a namespace beside the pod's", own)
		}
		k.remove()
		p.expectNothingLeft()
	})
}

// namespaceNumbers returns the process ids of a process, from the outermost pid namespace inwards.
func namespaceNumbers(t *testing.T, pid int) []int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "NSpid:")
	line, _, _ := strings.Cut(rest, "\n")
	var numbers []int
	for _, field := range strings.Fields(line) {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// While outputs are stored of a process that has ended, its number is that of no other process.
func TestRequestedOutputsKeepTheProcess(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		store := serveObjects(t, map[string]string{})
		store.stall(t, "/bucket/x")
		p := requestingPodOf(t, node, store.Listener.Addr().String())
		k, err := p.create(p.config(), map[string]string{"x": "/out/x -> s3://bucket/x"}, []string{"write", "/out/x", "text"})
		if err != nil {
			t.Fatal(err)
		}
		pid := k.Pid()
		k.start()
		waitFor(t, func() bool { return slices.Contains(store.asked(), "PUT /bucket/x") }, "the upload")
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || !strings.Contains(string(status), "(zombie)") {
			t.Errorf("process %d: %v\n%s", pid, err, status)
		}
		if s, err := k.Status(k.ctx); err != nil || s.Status != containerd.Running {
			t.Errorf("the container is %v, %v", s, err)
		}
		kill(t, k, unix.SIGKILL)
		k.expectCode(74)
		k.remove()
		p.expectNothingLeft()
	})
}
