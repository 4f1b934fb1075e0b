package argo

import (
	"path/filepath"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testexchange"
)

// The daemon reads on a volume to which other containers write. What they exchange a file for is never opened there: it may
// be a device.
func TestNothingButFilesIsOpened(t *testing.T) {
	dir := t.TempDir()
	volume, err := openVolume(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer volume.close()
	testexchange.ForFIFO(t, filepath.Join(dir, "exitcode"), "0", func() {
		if f, err := volume.openRegular("exitcode", 0); err == nil {
			f.Close()
		}
	})
}
