package test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testworker"
)

func digestOf(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// Machine code in an image runs only while the operator's configuration lists its digest.
func TestPrecompiledNeedsTheOperator(t *testing.T) {
	const image = "example.com/precompiled/hello:latest"
	code := filepath.Join(t.TempDir(), "hello.cwasm")
	if err := testworker.Compile(t.Context(), testguest.Build(t, "hello-c"), code); err != nil {
		t.Fatal(err)
	}
	digest := digestOf(t, code)
	packed := testguest.Image(t, image, testguest.ImageOpts{
		Files: map[string]string{"/app.cwasm": code, "/named.wasm": code}, Entrypoint: []string{"/app.cwasm"},
	})
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		node.Import(t, packed)
		node.NoLeaks(t)
		cache, _ := newCache(t)
		run := func(precompiled, command string) (testnode.Result, string) {
			config := shimConfig(t, fmt.Sprintf("cache_dir = %q\nprecompiled = [%s]", cache, precompiled))
			return node.Ctr(t, "run", "--rm", "--runtime", runtime, "--runtime-config-path", config, image, "precompiled", command), config
		}
		refused := func(precompiled, command string) {
			t.Helper()
			got, config := run(precompiled, command)
			if got.Code == 0 || got.Stdout != "" {
				t.Errorf("%s with %s: got %+v", command, precompiled, got)
			}
			wantAll(t, got.Stderr, []string{command + " is precompiled machine code", `add "sha256:` + digest + `" to precompiled in ` + config})
			noTask(t, node)
			noPreparer(t)
		}
		other := fmt.Sprintf(`"sha256:%s"`, strings.Repeat("0", 64))
		allowed := fmt.Sprintf(`%s, "sha256:%s"`, other, digest)
		refused("", "/app.cwasm")
		refused(other, "/named.wasm")
		for _, command := range []string{"/app.cwasm", "/named.wasm"} {
			got, _ := run(allowed, command)
			check(t, command, got, testnode.Result{Stdout: "hello from C\n"})
		}
		refused(other, "/app.cwasm") // which is now in the cache
	})
}
