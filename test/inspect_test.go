package test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/oci/inspect"
)

// image inspect predicts the results of TestImageFormats and TestImageRefused.
func TestInspectForetells(t *testing.T) {
	hello := builtGreeter(t)
	for _, format := range testimage.Formats() {
		t.Run(format.Name, func(t *testing.T) {
			report := inspectTar(t, format.Build(hello.of(format)))
			for _, image := range report.Images {
				if image.Runs == "" || image.Problem != "" {
					t.Errorf("of %s it says: runs %q, problem %q", image.Platform, image.Runs, image.Problem)
				}
				// It does not check whether the native program beside Wasm in the index can run.
				native := format.Name == "layer-index-native" && image.Platform == testimage.Native()
				if runsNatively := strings.Contains(image.Runs, "stock runc shim"); runsNatively != native {
					t.Errorf("of %s it says: %s", image.Platform, image.Runs)
				}
				if isComponent := strings.Contains(image.Runs, "a WebAssembly component, by its wasi:cli/run@0.2."); isComponent != format.Component {
					t.Errorf("of %s it says: %s", image.Platform, image.Runs)
				}
				if image.NeedsCommand != format.NeedsCommand() {
					t.Errorf("of %s it says that it needs a command: %v", image.Platform, image.NeedsCommand)
				}
			}
		})
	}
	for _, format := range testimage.Bad() {
		if _, ok := imageRefusals[format.Name]; !ok || format.Name == "bad-half-module" {
			continue // its content is correct, or only a compiler finds the fault
		}
		t.Run(format.Name, func(t *testing.T) {
			for _, image := range inspectTar(t, format.Build(hello.module)).Images {
				if image.Problem == "" {
					t.Errorf("it says that %s runs: %s", image.Platform, image.Runs)
				}
			}
		})
	}
}

func inspectTar(t *testing.T, image *testimage.Image) inspect.Report {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := image.WriteTar(path, "example.com/images/inspected:latest"); err != nil {
		t.Fatal(err)
	}
	output, err := shimCommand(t, "image", "inspect", "--json", path).Output()
	if err != nil && len(output) == 0 {
		t.Fatalf("image inspect: %v", err)
	}
	var report inspect.Report
	if err := json.Unmarshal(output, &report); err != nil {
		t.Fatalf("%v in %s", err, output)
	}
	if len(report.Images) == 0 {
		t.Fatalf("no image in %s", output)
	}
	return report
}

// image inspect finds the same file as a start, however the image names it.
func TestInspectFindsWhatRuns(t *testing.T) {
	ref := func(name string) string { // one for each case: all hold the same module, which is removed with its image
		return "example.com/inspect/" + strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' {
				return r
			}
			return -1
		}, strings.ToLower(name)) + ":latest"
	}
	module := testguest.Build(t, "hello-c")
	tars := map[string]string{}
	cases := map[string]struct {
		files []string
		entry string
		dir   string
		env   []string
		runs  string // the file, or "" if nothing runs
	}{
		"a function":                     {files: []string{"/app.wasm"}, entry: "/app.wasm#_start", runs: "/app.wasm"},
		"a # that names no function":     {files: []string{"/app"}, entry: "/app#init"},
		"a # in a name":                  {files: []string{"/my#app.wasm", "/my"}, entry: "/my#app.wasm", runs: "/my#app.wasm"},
		"two PATHs":                      {files: []string{"/a/app", "/b/app"}, entry: "app", env: []string{"PATH=/a", "PATH=/b"}, runs: "/b/app"},
		"a bare name":                    {files: []string{"/app.wasm"}, entry: "app.wasm", runs: "/app.wasm"},
		"a bare name elsewhere":          {files: []string{"/work/app.wasm"}, entry: "app.wasm", dir: "/work", runs: "/work/app.wasm"},
		"a bare name of no module":       {files: []string{"/app"}, entry: "app"},
		"PATH before the working folder": {files: []string{"/bin/app.wasm", "/app.wasm"}, entry: "app.wasm", runs: "/bin/app.wasm"},
		"from the working folder":        {files: []string{"/work/bin/app"}, entry: "bin/app", dir: "/work", runs: "/work/bin/app"},
		"nothing but the root":           {files: []string{"/app.wasm"}, entry: "/"},
		"a relative folder of PATH":      {files: []string{"/work/tools/app"}, entry: "app", dir: "/work", env: []string{"PATH=tools"}, runs: "/work/tools/app"},
		"an empty folder of PATH, which is the working one": {files: []string{"/work/app"}, entry: "app", dir: "/work", env: []string{"PATH=/none::"}, runs: "/work/app"},
	}
	for name, c := range cases {
		o := testguest.ImageOpts{Files: map[string]string{}, Entrypoint: []string{c.entry}, WorkingDir: c.dir, Env: c.env}
		for _, at := range c.files {
			o.Files[at] = module
		}
		tars[name] = testguest.Image(t, ref(name), o)
	}
	for name, c := range cases {
		output, err := shimCommand(t, "image", "inspect", "--json", tars[name]).Output()
		if err != nil && len(output) == 0 {
			t.Fatalf("image inspect: %v", err)
		}
		var report inspect.Report
		if err := json.Unmarshal(output, &report); err != nil || len(report.Images) != 1 {
			t.Fatalf("%v in %s", err, output)
		}
		runs := report.Images[0].Runs
		if found := strings.Contains(runs, "the file "+c.runs+" of layer"); c.runs != "" && !found || c.runs == "" && runs != "" {
			t.Errorf("%s: it says that it runs %q, want %q", name, runs, c.runs)
		}
	}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.NoLeaks(t)
		for name, c := range cases {
			node.Import(t, tars[name])
			got := node.Ctr(t, "run", "--rm", "--runtime", runtime, ref(name), "inspected")
			if ran := got.Stdout == greeting; ran != (c.runs != "") {
				t.Errorf("%s: %+v", name, got)
			}
		}
	})
}

// containerd can discard the layers that it has unpacked (discard_unpacked_layers, the default on EKS and GKE).
// Then the unpacked files say what runs, as a container sees them.
func TestInspectWithoutLayers(t *testing.T) {
	const ref = "example.com/images/discarded:latest"
	image := testguest.Image(t, ref, testguest.ImageOpts{
		Files: map[string]string{"/bin/app.wasm": testguest.Build(t, "hello-c"), "/lib/component.wasm": testguest.BuildComponent(t, "probe")},
		Links: map[string]string{"/run.wasm": "bin/app.wasm"}, Entrypoint: []string{"/run.wasm"},
	})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, image)
		node.NoLeaks(t)
		look := func() inspect.Image {
			t.Helper()
			output, err := shimCommand(t, "image", "inspect", "--json", "--address", node.Address(), "--namespace", node.Namespace, ref).CombinedOutput()
			if err != nil {
				t.Fatalf("image inspect: %v: %s", err, output)
			}
			var report inspect.Report
			if err := json.Unmarshal(output, &report); err != nil {
				t.Fatal(err)
			}
			return report.Images[0]
		}
		for _, layer := range look().Layers {
			if got := node.Ctr(t, "content", "rm", layer.Digest.String()); got.Code != 0 {
				t.Fatal(got.Stderr)
			}
		}
		got := look()
		if want := "the unpacked file /bin/app.wasm, a WebAssembly module"; got.Runs != want || got.Problem != "" {
			t.Errorf("it says: runs %q, problem %q; want %q", got.Runs, got.Problem, want)
		}
		check(t, "a run", node.Ctr(t, "run", "--rm", "--runtime", runtime, ref, "discarded"), testnode.Result{Stdout: greeting})
		node.Ctr(t, "image", "rm", "--sync", ref)
	})
}
