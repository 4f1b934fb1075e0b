package main

import (
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testregistry"
	"github.com/wasmshim/containerd-shim-wasm/oci/inspect"
)

const module = "\x00asm\x01\x00\x00\x00"

// call runs a command line that must succeed, and returns its output.
func call(t *testing.T, args ...string) string {
	t.Helper()
	var out strings.Builder
	if err := run(t.Context(), args, stdio{out: &out, err: io.Discard}); err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return out.String()
}

func appFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.wasm")
	if err := os.WriteFile(path, []byte(module), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagsFirst(t *testing.T) {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.String("t", "", "")
	set.Bool("push", false, "")
	for _, c := range []struct{ args, want []string }{
		{[]string{"a", "-t", "x", "b"}, []string{"-t", "x", "--", "a", "b"}},
		{[]string{"a", "--push", "b", "--t=x"}, []string{"--push", "--t=x", "--", "a", "b"}},
		{[]string{"-t", "-", "-"}, []string{"-t", "-", "--", "-"}},
		{[]string{"-t"}, []string{"-t", "--"}},
		{[]string{"--push", "--", "-t"}, []string{"--push", "--", "-t"}},
		{[]string{"--unknown", "a"}, []string{"--unknown", "--", "a"}},
	} {
		if got := flagsFirst(set, c.args); !slices.Equal(got, c.want) {
			t.Errorf("flagsFirst(%q) = %q, want %q", c.args, got, c.want)
		}
	}
}

func TestPackAndInspectAFile(t *testing.T) {
	app := appFile(t)
	tar := filepath.Join(t.TempDir(), "app.tar")
	packed := call(t, "image", "pack", app, "-t", "example.com/app:v1", "-o", tar, "--format", "layer",
		"--arg", "-x", "--env", "A=1", "--annotation", "org.example=a=b", "--file", app+":/data/app", "--platform", "wasi/wasm,linux/amd64")
	var report inspect.Report
	if err := json.Unmarshal([]byte(call(t, "image", "inspect", "--json", tar)), &report); err != nil {
		t.Fatal(err)
	}
	if want := "example.com/app:v1 " + report.Digest.String() + "\n"; packed != want || report.Name != "example.com/app:v1" {
		t.Errorf("packed %q, inspected %q, want %q", packed, report.Name, want)
	}
	if len(report.Images) != 2 {
		t.Fatalf("%d images, want 2", len(report.Images))
	}
	for _, i := range report.Images {
		if i.Problem != "" || !slices.Equal(i.Args, []string{"-x"}) || !slices.Equal(i.Env, []string{"A=1"}) || i.Annotations["org.example"] != "a=b" || len(i.Layers) != 2 {
			t.Errorf("the report says %+v", i)
		}
	}
	if text := call(t, "image", "inspect", tar); !strings.Contains(text, "runs:         layer 1 (app.wasm), a WebAssembly module") {
		t.Errorf("printed\n%s", text)
	}
}

func TestPackPushInspectTheRegistry(t *testing.T) {
	registry := testregistry.Start(t)
	ref := registry.Ref("app:v1")
	call(t, "image", "pack", "--push", "--plain-http", "-t", ref, "--format", "oras", appFile(t))
	text := call(t, "image", "inspect", "--registry", ref)
	if !strings.Contains(text, "application/vnd.unknown.config.v1+json") || !strings.Contains(text, "kubelet:      yes; with a command, as in app.wasm") {
		t.Errorf("printed\n%s", text)
	}
}

func TestPackImportInspectAdapt(t *testing.T) {
	node := testnode.New(t, testnode.Options{})
	at := []string{"--address", node.Address(), "--namespace", node.Namespace}
	with := func(args ...string) string { return call(t, slices.Concat(args, at)...) }
	with("image", "pack", appFile(t), "-t", "app", "--format", "wasm-to-oci", "--import")
	if text := with("image", "inspect", "app"); !strings.Contains(text, "docker.io/library/app:latest") || !strings.Contains(text, "ctr:          no") {
		t.Errorf("the artifact:\n%s", text)
	}
	with("image", "adapt", "app", "-t", "adapted")
	if text := with("image", "inspect", "adapted"); !strings.Contains(text, "ctr:          yes\n") {
		t.Errorf("the adapted one:\n%s", text)
	}
}

func TestImageVerbsSayWhatIsMissing(t *testing.T) {
	app := appFile(t)
	for want, args := range map[string][]string{
		"an argument is missing":        {"image", "pack"},
		"give the image a name with -t": {"image", "pack", app, "--push"},
		"-o FILE, --import or --push":   {"image", "pack", app, "-t", "app"},
		"unknown format":                {"image", "pack", app, "-t", "app", "-o", "x", "--format", "x"},
		"not the name of an image":      {"image", "pack", app, "-t", "App", "-o", "x"},
		"host:guest":                    {"image", "pack", app, "-t", "app", "-o", "x", "--file", "x"},
		"KEY=VALUE":                     {"image", "pack", app, "-t", "app", "-o", "x", "--annotation", "x"},
		"not a tar archive":             {"image", "inspect", app},
		"give the new image a name":     {"image", "adapt", "app"},
		"does not answer":               {"image", "inspect", "app", "--address", "/nowhere"},
	} {
		err := run(t.Context(), args, stdio{out: io.Discard, err: io.Discard})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", strings.Join(args, " "), err, want)
		}
	}
}
