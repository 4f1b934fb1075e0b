package shim

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/wasmshim/containerd-shim-wasm/runtime/digests"
)

// source is what machine code is made from.
type source struct {
	file *os.File // open for reading; errors call the module by its name
	// stored says that the file lies where only the node's own programs put files,
	// in an image's layer or in containerd's content store.
	stored bool
	// sha256 is what the file's must be, in hex; empty if nobody has said.
	sha256 string
	// compression is gzip, zstd or zip, or empty for none (package oci).
	compression string
}

func (s source) close() error { return s.file.Close() }

// key names the source in the compile cache. The same bytes under another compression
// are another module, if they are one at all.
func (s source) key(digest string) string {
	if s.compression == "" {
		return digest
	}
	return digest + "-" + s.compression
}

// digest returns the sha256 of the source's file, in hex.
func (n *node) digest(from source, cacheDir string) (string, error) {
	memory, err := digests.Open(filepath.Join(cacheDir, "digests"))
	if err != nil {
		n.log.WithError(err).Warn("starts take longer than they could: modules are hashed each time")
	}
	if from.sha256 != "" {
		return from.sha256, memory.Verify(from.file, from.sha256)
	}
	return memory.Digest(from.file, from.stored)
}

// checkSize keeps the node from reading what is too large to be compiled.
func (s settings) checkSize(from source) error {
	info, err := from.file.Stat()
	if err != nil {
		return fmt.Errorf("stat module: %w", err)
	}
	if info.Size() > s.MaxModuleSize {
		return fmt.Errorf("module %s has %d bytes, the limit is %d: raise max_module_size in %s", from.file.Name(), info.Size(), s.MaxModuleSize, s.source)
	}
	return nil
}

// trusts tells whether the operator allows the machine code in a file of this digest.
func (s settings) trusts(digest string) bool {
	return slices.Contains(s.Precompiled, "sha256:"+digest)
}
