package step

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor/artifact"
)

// maxPath bounds a path in an archive, in bytes, as the kernel bounds one (PATH_MAX).
const maxPath = 4095

// isTarball reports whether a file is a tarball, compressed by gzip, with anything in it.
func isTarball(f *os.File) bool {
	if _, err := artifact.Size(f); err != nil {
		return false
	}
	compressed, err := gzip.NewReader(io.NewSectionReader(f, 0, 1<<62))
	if err != nil {
		return false
	}
	_, err = tar.NewReader(compressed).Next()
	return err == nil
}

// untar unpacks a tarball into an empty folder: files, folders and links within the folder. As upstream it skips
// everything else.
func untar(ctx context.Context, f *os.File, into *os.Root) error {
	size, err := artifact.Size(f)
	if err != nil {
		return err
	}
	compressed, err := gzip.NewReader(io.NewSectionReader(f, 0, size))
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
		if err := untarEntry(header, archive, into); err != nil {
			if escapes(err) {
				return fmt.Errorf("illegal file path after symlink resolution: %s resolves outside destination", header.Name)
			}
			return err
		}
	}
	return ctx.Err()
}

func untarEntry(header *tar.Header, content io.Reader, into *os.Root) error {
	name, ok := inside(header.Name)
	if !ok {
		return fmt.Errorf("illegal file path: %s", header.Name)
	}
	switch header.Typeflag {
	case tar.TypeSymlink:
		if _, ok := inside(filepath.Join(filepath.Dir(name), header.Linkname)); !ok || filepath.IsAbs(header.Linkname) {
			return fmt.Errorf("illegal symlink target: %s -> %s", header.Name, header.Linkname)
		}
		if err := into.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		return into.Symlink(header.Linkname, name)
	case tar.TypeDir:
		return into.MkdirAll(name, 0o755)
	case tar.TypeReg:
		if err := into.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := extract(into, name, os.O_CREATE|os.O_RDWR, os.FileMode(header.Mode), content); err != nil {
			return err
		}
		return into.Chtimes(name, header.AccessTime, header.ModTime)
	}
	return nil
}

// inside returns a path of an archive, cleaned. It reports whether the path is one below the folder.
func inside(name string) (string, bool) {
	clean := strings.TrimLeft(filepath.Clean("/"+name), "/")
	relative := filepath.Clean(name)
	return clean, clean != "" && len(name) <= maxPath && relative != ".." && !strings.HasPrefix(relative, "../")
}

// extract writes a file of an archive. Only the permissions of the mode count.
func extract(into *os.Root, name string, flags int, mode os.FileMode, content io.Reader) error {
	f, err := into.OpenFile(name, flags|unix.O_NONBLOCK, mode.Perm())
	if err != nil {
		return err
	}
	if _, err = artifact.Size(f); err == nil {
		_, err = io.Copy(f, content)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// maxDirectory bounds the list of files at the end of a zip file, in bytes: all of it is read into memory.
const maxDirectory = 16 << 20

// unzip unpacks a zip file into an empty folder: files and folders.
func unzip(ctx context.Context, f *os.File, into *os.Root) error {
	size, err := artifact.Size(f)
	if err != nil {
		return err
	}
	bounded := &boundedReader{file: f, left: maxDirectory}
	archive, err := zip.NewReader(bounded, size)
	if err != nil {
		return err
	}
	bounded.left = -1
	for _, entry := range archive.File {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := unzipEntry(entry, into); err != nil {
			return err
		}
	}
	return nil
}

func unzipEntry(entry *zip.File, into *os.Root) error {
	name, ok := inside(strings.TrimLeft(entry.Name, "/"))
	if !ok {
		return fmt.Errorf("%s: Illegal file path", filepath.Join(into.Name(), entry.Name))
	}
	content, err := entry.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	if entry.FileInfo().IsDir() {
		return into.MkdirAll(name, entry.Mode().Perm())
	}
	if err := into.MkdirAll(filepath.Dir(name), entry.Mode().Perm()); err != nil {
		return err
	}
	return extract(into, name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, entry.Mode(), content)
}

// boundedReader fails after a number of bytes, if that is not negative.
type boundedReader struct {
	file io.ReaderAt
	left int64
}

func (b *boundedReader) ReadAt(p []byte, at int64) (int, error) {
	if b.left < 0 {
		return b.file.ReadAt(p, at)
	}
	if int64(len(p)) > b.left {
		return 0, fmt.Errorf("the zip file's list of files has more than %d bytes", maxDirectory)
	}
	b.left -= int64(len(p))
	return b.file.ReadAt(p, at)
}
