package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/install"
	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testregistry"
)

// localPull is the setting that install writes if pulls need one.
const localPull = "use_local_image_pull = true"

// installation is a node on which install has run.
type installation struct {
	*testnode.Node
	shim          string // path of the binary, in containerd's PATH
	config        string // path of the shim's own configuration
	configuration string // containerd's configuration, as install left it
}

// installedNode runs install on a new node.
func installedNode(t *testing.T, version string) installation {
	t.Helper()
	dir := t.TempDir()
	n := installation{shim: filepath.Join(dir, "bin", install.BinaryName), config: filepath.Join(dir, "config.toml")}
	n.Node = testnode.New(t, testnode.Options{Version: version, CRI: true, WithoutShim: true, Shim: n.shim})
	_, err := install.Install(t.Context(), install.Options{
		Config: n.ConfigPath(), BinDir: filepath.Dir(n.shim), Containerd: n.Tool("containerd"),
		NodeConfig: n.config, Binary: shimCommand(t).Path, Verifiers: filepath.Join(dir, "none"),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	text, err := os.ReadFile(n.ConfigPath())
	if err != nil {
		t.Fatal(err)
	}
	n.configuration = string(text)
	importPodImages(t, n.Node)
	return n
}

func (n installation) restart(t *testing.T) {
	t.Helper()
	if err := n.Terminate(); err != nil {
		t.Fatal(err)
	}
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// pushed returns a registry that holds images of the named formats, and the images by name.
func pushed(t *testing.T, formats ...string) (registry *testregistry.Registry, images map[string]*testimage.Image) {
	t.Helper()
	hello := builtGreeter(t)
	registry, images = testregistry.Start(t), map[string]*testimage.Image{}
	for _, name := range formats {
		format := named(t, name)
		images[name] = format.Build(hello.of(format))
		registry.Push(t, name, images[name])
	}
	return registry, images
}

func named(t *testing.T, name string) testimage.Format {
	t.Helper()
	format, ok := testimage.Named(name)
	if !ok {
		t.Fatalf("no format %q", name)
	}
	return format
}

// With the configuration that install writes, pods run images of every platform, with the module in a tar layer
// or as a layer itself. A containerd that needs no setting for that gets none.
func TestPullAsInstalled(t *testing.T) {
	names := []string{
		// An image of a foreign platform comes first: the others share its layer, and so also its unpacked
		// snapshot.
		"oci-tar-wasi-wasm", "oci-tar-wasip1-wasm", "oci-tar-linux-wasm", "docker-tar-wasi-wasm",
		"oci-tar-" + strings.ReplaceAll(testimage.Native(), "/", "-"),
		"component-tar-wasip2-wasm", "oci-index", "layer-application-wasm", "several", "artifact-wkg",
	}
	registry, _ := pushed(t, names...)
	for _, version := range testnode.Versions() {
		t.Run("containerd-"+version, func(t *testing.T) {
			node := installedNode(t, version)
			if got, want := strings.Contains(node.configuration, localPull), version == "2.4"; got != want {
				t.Errorf("install wrote %s: %t, want %t", localPull, got, want)
			}
			registry.ServeIn(t, node.PID())
			pod := runPod(t, node.Node, ourHandler, nil)
			for _, name := range names {
				t.Run(name, func(t *testing.T) { runWithCRI(t, pod, named(t, name), registry.Ref(name)) })
			}
		})
	}
}

// Without the setting that install writes for 2.4, CRI fetches an image of a foreign operating system but then
// has no snapshot of it. No narrower setting helps. If this test fails, install can write a better setting or
// none.
func TestPullWithoutSetting(t *testing.T) {
	unpacked := []string{"oci-tar-linux-wasm", "layer-application-wasm"}
	lost := []string{"oci-tar-wasi-wasm", "oci-tar-wasip1-wasm", "component-tar-wasip2-wasm", "several"}
	registry, _ := pushed(t, slices.Concat(unpacked, lost)...)
	const images, transfer = "[plugins.'io.containerd.cri.v1.images'", "[plugins.'io.containerd.transfer.v1.local'"
	unpack := func(platform string) string {
		return "[" + transfer + ".unpack_config]]\nplatform = '" + platform + "'\nsnapshotter = 'overlayfs'\ndiffer = 'walking'\n"
	}
	unpackAll := unpack(testimage.Native()) + unpack("wasi/wasm") + unpack("wasip1/wasm") + unpack("wasip2/wasm")
	for name, setting := range map[string]string{
		"stock":              "",
		"transfer service":   unpackAll,
		"checked platforms":  transfer + "]\ncheck_platform_supported = true\n" + unpackAll,
		"runtime's platform": images + ".runtime_platforms." + ourHandler + "]\nplatform = 'wasi/wasm'\nsnapshotter = 'overlayfs'\n",
	} {
		t.Run(name, func(t *testing.T) {
			node := testnode.New(t, testnode.Options{Version: "2.4", CRI: true, WithoutShim: true,
				Config: "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes." + ourHandler + "]\nruntime_type = '" + runtime + "'\n" + setting})
			importPodImages(t, node)
			registry.ServeIn(t, node.PID())
			pod := runPod(t, node, ourHandler, nil)
			for _, name := range lost {
				ref := registry.Ref(name)
				if _, err := pod.cri.Pull(t.Context(), ref); err != nil {
					t.Fatal(err)
				}
				_, err := pod.tryAdd(way{image: ref, programs: map[string][]string{name: nil}}, name, nil)
				if err == nil || !strings.Contains(err.Error(), "parent snapshot") {
					t.Errorf("a container of %s: %v", name, err)
				}
			}
			if name == "stock" {
				for _, name := range unpacked {
					runWithCRI(t, pod, named(t, name), registry.Ref(name))
				}
			}
		})
	}
}

// install omits the setting on nodes that have image verifiers, because CRI does not call them when it pulls by
// itself.
func TestPullPastVerifiers(t *testing.T) {
	const name = "oci-tar-linux-wasm"
	registry, _ := pushed(t, name)
	verifiers := t.TempDir()
	if err := os.WriteFile(filepath.Join(verifiers, "refuse"), []byte("#!/bin/sh\necho not here\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := "[plugins.'io.containerd.image-verifier.v1.bindir']\nbin_dir = '" + verifiers + "'\n"
	for setting, asked := range map[string]bool{"": true, "[plugins.'io.containerd.cri.v1.images']\n" + localPull + "\n": false} {
		node := testnode.New(t, testnode.Options{Version: "2.4", CRI: true, WithoutShim: true, Config: config + setting})
		registry.ServeIn(t, node.PID())
		_, err := podsOf(t, node).Pull(t.Context(), registry.Ref(name))
		if refused := err != nil && strings.Contains(err.Error(), "blocked pull"); refused != asked || !asked && err != nil {
			t.Errorf("with %q: %v", setting, err)
		}
	}
}

// CRI selects a manifest from an index by the platform of the node, and no setting changes that. An index
// without that platform cannot be pulled. Its manifests can be pulled by digest.
func TestPullOfForeignIndex(t *testing.T) {
	const name = "layer-index-foreign"
	registry, images := pushed(t, name)
	format := named(t, name)
	podNodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		importPodImages(t, node)
		registry.ServeIn(t, node.PID())
		pod := runPod(t, node, ourHandler, nil)
		_, err := pod.cri.Pull(t.Context(), registry.Ref(name))
		if err == nil || !strings.Contains(err.Error(), "no match for platform in manifest") {
			t.Errorf("pulling the index: %v", err)
		}
		runWithCRI(t, pod, format, registry.Ref(name+"@"+manifestFor(t, images[name], "wasi/wasm")))
	})
}

// The transfer service of 2.4 unpacks only linux images, and refuses a request of ctr for another platform.
// --local avoids the transfer service.
func TestCtrPullOfForeignPlatform(t *testing.T) {
	const name = "oci-tar-wasi-wasm"
	registry, _ := pushed(t, name)
	ref := registry.Ref(name)
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		t.Cleanup(func() { node.Ctr(t, "image", "rm", "--sync", ref) })
		pull := []string{"image", "pull", "--plain-http", "--platform", "wasi/wasm"}
		got := node.Ctr(t, append(pull, ref)...)
		if node.Version != "2.4" {
			check(t, "ctr image pull", testnode.Result{Code: got.Code}, testnode.Result{})
			return
		}
		if got.Code == 0 || !strings.Contains(got.Stderr, "no unpack platforms defined") {
			t.Errorf("ctr image pull --platform: %+v", got)
		}
		got = node.Ctr(t, append(pull, "--local", ref)...)
		check(t, "ctr image pull --local", testnode.Result{Code: got.Code}, testnode.Result{})
	})
}
