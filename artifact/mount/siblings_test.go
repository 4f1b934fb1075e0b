package mount

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testbucket"
	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testmount"
)

// Files of a tree that are read in order are fetched ahead, those at random are not. Each is fetched once.
func TestSiblings(t *testing.T) {
	store := testbucket.Start(t)
	b := store.Bucket(t)
	const files = 60
	for i := range files {
		testbucket.Put(t, b, fmt.Sprintf("%02d", i), random(1000))
	}
	var requests atomic.Int64
	b = store.Front(t, b, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") != "" {
			requests.Add(1)
		}
		return false
	})
	serve := func() string {
		cache, tree := newCache(t, 8<<20), Tree{Files: map[string]File{}}
		for info, err := range b.List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			tree.Files[info.Key] = File{Object: cache.Open(b, info)}
		}
		target := t.TempDir()
		s, err := ServeTree(testmount.Attach(t, target, 0o40755), tree, slog.Default())
		if err != nil {
			t.Fatal(err)
		}
		ended(t, s, target)
		testmount.OpenOnce(t, filepath.Join(target, fmt.Sprint(files-1)))
		requests.Store(0)
		return target
	}
	read := func(target string, i int) {
		if got, err := os.ReadFile(filepath.Join(target, fmt.Sprintf("%02d", i))); err != nil || len(got) != 1000 {
			t.Errorf("%d: %d bytes, %v", i, len(got), err)
		}
	}
	target := serve()
	for i := range 10 {
		read(target, i)
	}
	if n := requests.Load(); n <= 10 || n > 30 {
		t.Errorf("%d requests for the first ten", n)
	}
	for i := 10; i < files; i++ {
		read(target, i)
	}
	if n := requests.Load(); n != files {
		t.Errorf("%d requests for all", n)
	}
	target = serve()
	for i := range files {
		read(target, i*7%files)
	}
	if n := requests.Load(); n != files {
		t.Errorf("%d requests at random", n)
	}
	target = serve()
	for i := range 5 {
		read(target, i*7%files)
	}
	if n := requests.Load(); n != 5 {
		t.Errorf("%d requests for five at random", n)
	}
}
