package archive

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// IsTarball reports whether a file is a tarball, compressed by gzip, with anything in it.
func IsTarball(r io.Reader) bool {
	compressed, err := gzip.NewReader(r)
	if err != nil {
		return false
	}
	_, err = tar.NewReader(compressed).Next()
	return err == nil
}

// Untar unpacks a tarball, compressed by gzip, into an empty folder: files, folders and links within the folder. As
// upstream it skips everything else, and does not read what follows the end of the tarball.
func Untar(ctx context.Context, r io.Reader, to Target) error {
	compressed, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	archive := tar.NewReader(compressed)
	for ctx.Err() == nil {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := untarEntry(header, archive, to); err != nil {
			if escapes(err) {
				return fmt.Errorf("illegal file path after symlink resolution: %s resolves outside destination", header.Name)
			}
			return err
		}
	}
	return ctx.Err()
}

func untarEntry(header *tar.Header, content io.Reader, to Target) error {
	name, ok := inside(header.Name)
	if !ok {
		return fmt.Errorf("illegal file path: %s", header.Name)
	}
	switch header.Typeflag {
	case tar.TypeSymlink:
		if _, ok := inside(filepath.Join(filepath.Dir(name), header.Linkname)); !ok || filepath.IsAbs(header.Linkname) {
			return fmt.Errorf("illegal symlink target: %s -> %s", header.Name, header.Linkname)
		}
		return to.Link(name, header.Linkname)
	case tar.TypeDir:
		return to.Folder(name, 0o755)
	case tar.TypeReg:
		return to.File(File{
			Name: name, Size: header.Size, Mode: os.FileMode(header.Mode).Perm(), Above: 0o755,
			Accessed: header.AccessTime, Modified: header.ModTime, Flags: os.O_CREATE | os.O_RDWR,
			Open: func() (io.ReadCloser, error) { return io.NopCloser(content), nil },
		})
	}
	return nil
}
