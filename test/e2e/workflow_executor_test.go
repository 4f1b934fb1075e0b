package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A workflow's pod whose containers are all Wasm has no native process: our own program does the work of Argo's
// executor, and there is no stock shim.
func TestWorkflowHasNoNativeProcess(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		if a.executor {
			t.Skip("argoexec is native")
		}
		w := a.submit(t, asWasm.workflow(t, looping)).says(t, "", "looping")
		pod := a.pod(t, w, "")
		for _, pid := range shimPIDs(t, pod) {
			equal(t, "the program of a shim", program(t, pid), "containerd-shim-wasm-v1")
		}
		// It is started from a folder that is mounted nowhere, so its file has no path.
		equal(t, "the program of the wait container", strings.TrimSpace(get(t, "/proc", fmt.Sprint(hostPID(t, pod, "wait")), "comm")), "worker")
	})
}

// A workflow's annotation leaves its pods' init and wait containers to the real executor.
func TestWorkflowAsksForTheRealExecutor(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.submit(t, asWasm.workflow(t, "podMetadata: {annotations: {wasm.shim/native-argoexec: \"true\"}}\n"+looping)).says(t, "", "looping")
		equal(t, "the program of the wait container", program(t, hostPID(t, a.pod(t, w, ""), "wait")), "argoexec")
	})
}

// program returns the file name of the program that a process runs.
func program(t testing.TB, pid int) string {
	t.Helper()
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(path)
}
