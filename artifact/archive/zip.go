package archive

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxDirectory bounds the list of files at the end of a zip file, in bytes: all of it is read into memory.
const maxDirectory = 16 << 20

// IllegalPath is the error about a path in a zip file.
type IllegalPath string

func (e IllegalPath) Error() string { return string(e) + ": Illegal file path" }

// Unzip unpacks a zip file into an empty folder: files and folders.
func Unzip(ctx context.Context, from io.ReaderAt, size int64, to Target) error {
	archive, err := openZip(from, size)
	if err != nil {
		return err
	}
	for _, entry := range archive.File {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := unzipEntry(entry, to); err != nil {
			return err
		}
	}
	return nil
}

// openZip reads the list of files.
func openZip(from io.ReaderAt, size int64) (*zip.Reader, error) {
	bounded := &boundedReader{file: from, left: maxDirectory}
	archive, err := zip.NewReader(bounded, size)
	bounded.left = -1
	return archive, err
}

func unzipEntry(entry *zip.File, to Target) error {
	name, ok := inside(strings.TrimLeft(entry.Name, "/"))
	if !ok {
		return IllegalPath(entry.Name)
	}
	mode := entry.Mode().Perm()
	if entry.FileInfo().IsDir() {
		return to.Folder(name, mode)
	}
	return to.File(File{
		Name: name, Size: int64(entry.UncompressedSize64), Mode: mode, Above: mode,
		Flags: os.O_CREATE | os.O_WRONLY | os.O_TRUNC, Open: entry.Open,
	})
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
