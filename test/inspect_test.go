package test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/oci/inspect"
)

// image inspect foretells what TestImageFormats and TestImageRefused see happen.
func TestInspectForetells(t *testing.T) {
	hello := builtGreeter(t)
	for _, format := range testimage.Formats() {
		t.Run(format.Name, func(t *testing.T) {
			report := inspectTar(t, format.Build(hello.of(format)))
			for _, image := range report.Images {
				if image.Runs == "" || image.Problem != "" {
					t.Errorf("of %s it says: runs %q, problem %q", image.Platform, image.Runs, image.Problem)
				}
				// Whether the program in the index beside Wasm is any good it does not know.
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
			continue // its fault is not in what it holds, or only a compiler sees it
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
