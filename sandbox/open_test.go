package sandbox

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testexchange"
)

// A file that a neighbour exchanges for something else while it is opened is opened as it was found, or refused. What is put
// in its place is never opened: a device would act.
func TestNothingButFilesIsOpened(t *testing.T) {
	dir := t.TempDir()
	s := &Sandbox{thread: newThread(), base: "/", root: -1}
	defer s.Close()
	if err := s.thread.do(func() error { return s.openRoot(dir) }); err != nil {
		t.Fatal(err)
	}
	testexchange.ForFIFO(t, filepath.Join(dir, "app.wasm"), "app", func() {
		f, err := s.OpenFile("/app.wasm")
		if err == nil {
			f.Close()
		} else if !errors.Is(err, ErrNotRegular) {
			t.Error(err)
		}
	})
}
