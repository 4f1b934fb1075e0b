package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/containerd/v2/client"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

const optionsNativeImage = "example.com/options/busybox:latest"

func shimConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The stock shim accepts only runc's options. Native containers also run with our options.
func TestNativeContainerWithOurOptions(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, testguest.Busybox(t, optionsNativeImage))
		node.NoLeaks(t)
		file := shimConfig(t, "")
		got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, optionsNativeImage, "native", "/hello")
		if want := (testnode.Result{Stdout: "hello from native C\n"}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// The cgroup driver of our configuration reaches runc, which reports that systemd is missing.
func TestNativeContainerGetsTheCgroupDriver(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Log("this machine has systemd: runc refuses the cgroup's path instead")
	}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, testguest.Busybox(t, optionsNativeImage))
		node.NoLeaks(t)
		file := shimConfig(t, "systemd_cgroup = true")
		got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, optionsNativeImage, "native", "/hello")
		if got.Code == 0 || !strings.Contains(got.Stderr, "systemd") && !strings.Contains(got.Stderr, "cgroupsPath") {
			t.Errorf("runc was not told of the driver: %+v", got)
		}
		noTask(t, node)
	})
}

// The options that containerd's CRI plugin sends: a path, a text, runc's own options, and faulty ones.
func TestRuntimeOptions(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		c, image := refusedNode(t, node)
		node.NoLeaks(t)
		cache, file := newCache(t)
		for name, test := range map[string]struct {
			options any
			want    []string // nil if the task is created
		}{
			"none":              {options: nil},
			"empty":             {options: &runtimeoptions.Options{}},
			"runc's":            {options: &runcoptions.Options{BinaryName: "runc"}},
			"path":              {options: &runtimeoptions.Options{ConfigPath: file}},
			"body":              {options: &runtimeoptions.Options{ConfigBody: []byte(fmt.Sprintf("cache_dir = %q", cache))}},
			"limit in the body": {options: &runtimeoptions.Options{ConfigBody: []byte("max_module_size = 64")}, want: []string{"the limit is 64", "raise max_module_size in the options of the runtime in containerd's configuration"}},
			"wrong body":        {options: &runtimeoptions.Options{ConfigBody: []byte("Debug = true")}, want: []string{"the options of the runtime in containerd's configuration", `unknown key "Debug"`}},
			"missing path":      {options: &runtimeoptions.Options{ConfigPath: "/nonexistent/config.toml"}, want: []string{"ConfigPath", "/nonexistent/config.toml", "no such file"}},
			"relative path":     {options: &runtimeoptions.Options{ConfigPath: "config.toml"}, want: []string{"ConfigPath", `"config.toml"`, "not an absolute path"}},
			"checkpoint's":      {options: &runcoptions.CheckpointOptions{Exit: true}, want: []string{"containerd.runc.v1.CheckpointOptions", "unknown"}},
		} {
			opts := append(refusedContainer(image, func(*specs.Spec) {}), client.WithRuntime(runtime, test.options))
			err := tryTask(t, c, opts)
			if len(test.want) == 0 {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			if err == nil {
				t.Errorf("%s: the task was created", name)
				continue
			}
			wantAll(t, err.Error(), test.want)
		}
		compiledFile(t, cache)
	})
}
