package test

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testregistry"
)

// cache warm --watch compiles the present images and those that are pulled later. So even the first container
// compiles nothing.
func TestCacheWarmWatch(t *testing.T) {
	present, pulled := ownGuest(t, "hello-c"), ownGuest(t, "hello-c")
	registry := testregistry.Start(t)
	const ref = "example.com/warm/present:latest"
	tar := testguest.Image(t, ref, testguest.ImageOpts{Files: map[string]string{"/app.wasm": present}, Entrypoint: []string{"/app.wasm"}})
	formats := map[string]string{}
	for _, name := range []string{"oci-tar-" + strings.ReplaceAll(testimage.Native(), "/", "-"), "layer-application-wasm"} {
		format, ok := testimage.Named(name)
		if !ok {
			t.Fatalf("there is no format %s", name)
		}
		guest, err := os.ReadFile(pulled)
		if err != nil {
			t.Fatal(err)
		}
		formats[name] = registry.Push(t, name, format.Build(guest))
	}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, tar)
		node.Import(t, testguest.Busybox(t, busyboxImage)) // for this image nothing is printed
		node.NoLeaks(t)
		_, file := newCache(t)
		said := watchImages(t, node, file)
		expectSaid(t, said, ref, "compiled")
		for name, image := range formats {
			if got := node.Ctr(t, "image", "pull", "--plain-http", image); got.Code != 0 {
				t.Fatal(got.Stderr)
			}
			defer node.Ctr(t, "image", "rm", "--sync", image)
			expectSaid(t, said, image, "compiled")
			log, err := os.Stat(node.Log())
			if err != nil {
				t.Fatal(err)
			}
			got := node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", file, image, "warm")
			if got.Code != 0 || !strings.HasPrefix(got.Stdout, "hello ") {
				t.Errorf("%s: %+v", name, got)
			}
			if text := node.LogTail(log.Size(), 1000); strings.Contains(text, "msg=compiled") {
				t.Errorf("the container of %s compiled its module again", name)
			}
		}
	})
}

// watchImages starts cache warm --watch, stops it at the end of the test, and returns its output lines.
func watchImages(t *testing.T, node *testnode.Node, config string) <-chan string {
	t.Helper()
	verb := shimCommand(t, "cache", "warm", "--watch", "--address", node.Address(), "--namespace", node.Namespace, "--config", config)
	command := exec.Command(verb.Path, verb.Args[1:]...) // not killed when the test's context ends
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 64)
	go func() {
		defer close(said)
		for lines := bufio.NewScanner(output); lines.Scan(); {
			said <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		if err := command.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		for range said { // until the verb has ended
		}
		if err := command.Wait(); err != nil {
			t.Errorf("cache warm --watch: %v", err)
		}
	})
	return said
}

// expectSaid waits for the output line about an image.
func expectSaid(t *testing.T, said <-chan string, image, what string) {
	t.Helper()
	for line := range said {
		if strings.HasPrefix(line, busyboxImage) {
			t.Errorf("of a native image it said %q", line)
		}
		if strings.HasPrefix(line, image+": ") {
			if !strings.Contains(line, what) {
				t.Errorf("of %s it said %q", image, line)
			}
			return
		}
	}
	t.Fatalf("it ended and said nothing of %s", image)
}
