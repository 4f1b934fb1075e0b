package step

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor/artifact"
	"github.com/wasmshim/containerd-shim-wasm/artifact/archive"
)

// isTarball reports whether a file is a tarball, compressed by gzip, with anything in it.
func isTarball(f *os.File) bool {
	_, err := artifact.Size(f)
	return err == nil && archive.IsTarball(io.NewSectionReader(f, 0, 1<<62))
}

// untar unpacks a tarball into an empty folder.
func untar(ctx context.Context, f *os.File, into *os.Root) error {
	size, err := artifact.Size(f)
	if err != nil {
		return err
	}
	return archive.Untar(ctx, io.NewSectionReader(f, 0, size), archive.Folder{Root: into})
}

// unzip unpacks a zip file into an empty folder.
func unzip(ctx context.Context, f *os.File, into *os.Root) error {
	size, err := artifact.Size(f)
	if err != nil {
		return err
	}
	err = archive.Unzip(ctx, f, size, archive.Folder{Root: into})
	if illegal := archive.IllegalPath(""); errors.As(err, &illegal) {
		return fmt.Errorf("%s: Illegal file path", filepath.Join(into.Name(), string(illegal)))
	}
	return err
}
