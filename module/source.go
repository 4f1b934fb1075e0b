package module

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/module/digests"
	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// Source is the file or layer that machine code is made from.
type Source struct {
	file *os.File // open for reading; errors use its name for the module
	// stored reports whether the file is in a place where only the node's own programs put files: an image's
	// layer or containerd's content store.
	stored bool
	// sha256 is the expected sha256 of the file, in hex, or empty if none is given.
	sha256 string
	// compression is gzip, zstd or zip, or empty for none (package oci).
	compression string
	// image is the image that the file is a layer of; it is empty for a file of a container.
	image oci.Found
	// function is the function to call, nil if none is given.
	function *string
}

// Close releases the source. Code that was made from it stays.
func (s Source) Close() error { return s.file.Close() }

// key returns the name of the source in the compile cache. The same bytes under another compression are
// another module, if they are a module at all.
func (s Source) key(digest string) string {
	if s.compression == "" {
		return digest
	}
	return digest + "-" + s.compression
}

// hash returns the sha256 of the file of a job's source, in hex.
func (j *job) hash(ctx context.Context) (string, error) {
	memory, err := digests.Open(filepath.Join(j.settings.CacheDir, "digests"))
	if err != nil {
		j.loader.Log.WithError(err).Warn("remember the digests of modules: each start hashes its module, which is slower")
	}
	// A pod hashes one module at a time: that is the daemon's own work, outside of the pod's limits.
	memory.Turn = func(ctx context.Context) (func(), error) {
		turn, err := j.loader.takeHashTurn(ctx, j.payer, j.settings)
		if err != nil {
			return nil, err
		}
		return turn.end, nil
	}
	if j.from.sha256 != "" {
		return j.from.sha256, memory.Verify(ctx, j.from.file, j.from.sha256)
	}
	return memory.Digest(ctx, j.from.file, j.from.stored)
}

// freeze returns the source's bytes in a file that cannot change between hashing and compiling, and fails
// unless they have the digest. Otherwise a process that can write to a volume could have the code of one
// module kept under the digest of another. dir is where a copy may be. The caller closes the file.
func (s Source) freeze(ctx context.Context, digest, dir string) (*os.File, error) {
	if s.stored {
		fd, err := unix.FcntlInt(s.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("duplicate module: %w", err)
		}
		return os.NewFile(uintptr(fd), s.file.Name()), nil
	}
	frozen, err := nameless(dir, s.file.Name())
	if err != nil {
		return nil, err
	}
	hash := sha256.New()
	info, err := s.file.Stat()
	if err == nil {
		_, err = io.Copy(io.MultiWriter(frozen, hash), digests.Reader(ctx, io.NewSectionReader(s.file, 0, info.Size())))
	}
	switch {
	case err != nil:
		err = fmt.Errorf("copy module %s: %w", s.file.Name(), err)
	case hex.EncodeToString(hash.Sum(nil)) != digest:
		err = fmt.Errorf("module %s changed while it was read: start the container again when it is complete", s.file.Name())
	default:
		return frozen, nil
	}
	frozen.Close()
	return nil, err
}

// nameless returns a file that disappears when it is closed, on the disk of dir or, if that fails, in memory.
func nameless(dir, name string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		fd, err = unix.MemfdCreate("module", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("make room for a copy of module %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// checkSize fails for a file that is too large to be compiled, so that the node does not read it.
func (s Source) checkSize(settings config.Config) error {
	info, err := s.file.Stat()
	if err != nil {
		return fmt.Errorf("stat module: %w", err)
	}
	if info.Size() > settings.MaxModuleSize {
		return fmt.Errorf("module %s has %d bytes, the limit is %d: raise max_module_size in %s", s.file.Name(), info.Size(), settings.MaxModuleSize, settings.Source)
	}
	return nil
}

// trusts reports whether the operator allows the machine code in a file of this digest.
func trusts(settings config.Config, digest string) bool {
	return slices.Contains(settings.Precompiled, "sha256:"+digest)
}
