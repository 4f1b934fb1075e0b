package test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// A start does not read a module that an earlier start has hashed: it uses the recorded digest.
func TestDigestIsRemembered(t *testing.T) {
	guests := map[string]string{"hello-c": "hello from C\n", "hello-rust": "hello from Rust\n"}
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		const image = "example.com/digests/hello:latest"
		files := map[string]string{}
		for guest := range guests {
			files["/"+guest+".wasm"] = testguest.Build(t, guest)
		}
		node.Import(t, testguest.Image(t, image, testguest.ImageOpts{Files: files, Entrypoint: []string{"/hello-c.wasm"}}))
		node.NoLeaks(t)
		cache, config := newCache(t)
		run := func(guest string) testnode.Result {
			return node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", config, image, guest, "/"+guest+".wasm")
		}
		// A file that containerd has just unpacked is hashed at each start, until the file is old enough to be
		// recorded.
		records := map[string]string{}
		for guest, want := range guests {
			digest := []byte(digestOf(t, files["/"+guest+".wasm"]))
			if !eventually(func() bool {
				check(t, guest, run(guest), testnode.Result{Stdout: want})
				records[guest] = recordOf(t, cache, digest)
				return records[guest] != ""
			}) {
				t.Fatalf("%s is not remembered", guest)
			}
		}
		content, err := os.ReadFile(records["hello-c"])
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.ReplaceAll(content, []byte(digestOf(t, files["/hello-c.wasm"])), []byte(digestOf(t, files["/hello-rust.wasm"])))
		if err := os.WriteFile(records["hello-c"], content, 0o600); err != nil {
			t.Fatal(err)
		}
		check(t, "with the other's digest", run("hello-c"), testnode.Result{Stdout: guests["hello-rust"]})
	})
}

// recordOf returns the path of the one record in a cache that has the digest, or "" if there is none.
func recordOf(t *testing.T, cache string, digest []byte) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(cache, "digests", "*", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, digest) {
			return path
		}
	}
	return ""
}
