package test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// usable masks a set of /proc/PID/status to the capabilities that a guest can use: those that change what may
// be done to files (CAP_CHOWN, the first, to CAP_FSETID, the fifth).
func usable(t *testing.T, set string) string {
	t.Helper()
	caps, err := strconv.ParseUint(set, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%016x", caps&0x1f)
}

// confinement are the lines of /proc/PID/status that show which rights a process has dropped.
var confinement = []string{"CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters"}

// expectConfined waits until a process has the given capabilities and number of seccomp filters, and fails if
// it never does.
func expectConfined(t *testing.T, what string, pid int, caps, filters string) {
	t.Helper()
	want := map[string]string{"CapPrm": caps, "CapEff": caps, "CapBnd": caps, "NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": filters}
	if filters == "0" {
		want["Seccomp"] = "0"
	}
	var got map[string]string
	if !eventually(func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatalf("%s had %v, want %v, until: %v", what, got, want, err)
		}
		got = statusLines(string(status), confinement)
		return maps.Equal(got, want)
	}) {
		t.Errorf("%s has %v, want %v", what, got, want)
	}
}

// Each process that holds the engine has dropped the rights that its role does not need, whatever its pod
// grants. A native program that the shim launches, such as a pause container's, keeps what its pod grants.
func TestConfined(t *testing.T) {
	const files, ordinary = "000000000000001b", "00000000a80425fb"
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importComponents(t, node)
		importArgoImages(t, node)
		guest := asWasm.run(t, node, "loop", "looping\n")
		expectConfined(t, "a guest", int(guest.Pid()), files, "1")
		expectConfined(t, "a component", int(asComponent.run(t, node, "loop", "looping\n").Pid()), files, "1")
		exec := guest.exec(wasmPrograms["loop"], nil)
		exec.output.await(t, "looping")
		expectConfined(t, "an exec", int(exec.Pid()), files, "1")
		if err := exec.Kill(guest.ctx, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		guest.finish(exec)

		argo := argoWasm.emissary(t, node, "{}", nil, []string{"loop"})
		argo.start()
		argo.output.await(t, "looping")
		processes, err := argo.Pids(argo.ctx)
		if err != nil || len(processes) != 2 {
			t.Fatalf("Argo's container has processes %v, %v", processes, err)
		}
		for _, p := range processes {
			if p.Pid == argo.Pid() {
				expectConfined(t, "Argo's emissary", int(p.Pid), files, "1")
			} else {
				expectConfined(t, "Argo's guest", int(p.Pid), files, "2")
			}
		}

		pause := asNative.createArgs(t, node, []string{"/bin/sleep", "1000"}, asPause)
		pause.start()
		expectConfined(t, "a pause container", int(pause.Pid()), ordinary, "0")
	})
}

// A preparer has no capability, no user namespace in common with other processes and no unneeded descriptors.
// Only root may inspect it.
func TestConfinedPreparer(t *testing.T) {
	const ref = "example.com/confined/big:latest"
	big, err := testguest.Keep("big.wasm", testguest.Big(4<<20))
	if err != nil {
		t.Fatal(err)
	}
	image := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": big}, Entrypoint: []string{"/app.wasm"}})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		node.NoLeaks(t)
		_, file := newCache(t)
		ended := make(chan error, 1)
		go func() {
			_, err := node.RunCtr(t.Context(), testnode.CtrOpts{}, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, ref, "confined-big")
			ended <- err
		}()
		shim, found := 0, preparer{}
		if !eventually(func() bool { shim = compilingShim(t, node); return shim != 0 }) {
			t.Fatalf("nothing is being compiled: %v", <-ended)
		}
		for _, p := range preparers(t) {
			if p.shim == shim {
				found = p
			}
		}
		expectConfined(t, "a preparer", found.pid, "0000000000000000", "1")
		awaitOrder(t, found.pid)
		// Stop the preparer, so that it can be inspected.
		if err := syscall.Kill(found.pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		lookAtPreparer(t, found.pid)
		if err := syscall.Kill(found.pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// awaitOrder waits until a preparer has received its order. From then on it uses more memory than
// the module has.
func awaitOrder(t *testing.T, pid int) {
	t.Helper()
	if !eventually(func() bool {
		var pages, resident int
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err == nil {
			_, err = fmt.Sscan(string(text), &pages, &resident)
		}
		if err != nil {
			t.Fatal(err)
		}
		return resident*os.Getpagesize() > 32<<20
	}) {
		t.Error("it compiles nothing")
	}
}

func lookAtPreparer(t *testing.T, pid int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d", pid)
	namespace := func(dir string) string {
		link, err := os.Readlink(dir + "/ns/user")
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	if namespace(dir) == namespace("/proc/self") {
		t.Error("its user namespace is the host's")
	}
	info, err := os.Stat(dir + "/mem")
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("its memory is user %d's to look at", owner)
	}
	text, err := os.ReadFile(dir + "/limits")
	if err != nil {
		t.Fatal(err)
	}
	got := limitsOf(string(text))
	for name, want := range map[string]string{"Max open files": "32 32", "Max core file size": "0 0"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if limit := got["Max file size"]; limit == "" || strings.Contains(limit, "unlimited") {
		t.Errorf("Max file size is %q", limit)
	}
}

// If a seccomp profile prevents a worker from confining itself or a guest, the worker does not start, and the error says
// why.
func TestProfileAgainstConfinement(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		for _, call := range []string{"seccomp", "openat2", "fstatfs"} {
			denies := filtered(specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{call}, Action: specs.ActErrno}},
			})
			k := asWasm.create(t, node, "loop", func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
				denies(s)
				return nil
			})
			if err := k.Start(k.ctx); err == nil || !strings.Contains(err.Error(), "the container's seccomp profile must allow ") || !strings.Contains(err.Error(), call+"(2)") {
				t.Errorf("without %s it was started with %v", call, err)
			}
		}
	})
}
