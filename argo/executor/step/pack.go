package step

import (
	"archive/zip"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/artifact"
)

// openShared opens an output on a volume, where the main container sees it.
func (s *step) openShared(name string) (*os.File, error) {
	whole := s.Root + mainFiles + name
	info, err := s.statShared(name, 0)
	if failed := (*os.PathError)(nil); errors.As(err, &failed) {
		return nil, &os.PathError{Op: "stat", Path: whole, Err: failed.Err}
	}
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = fmt.Errorf("%s is not a regular file or directory", whole)
	}
	if err != nil {
		return nil, err
	}
	f, err := openBeneath(s.Root+mainFiles, name, unix.O_RDONLY, inMain)
	if err != nil {
		return nil, err
	}
	info, err = f.Stat()
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() { // something else has come in its place
		err = fmt.Errorf("%s is not a regular file or directory", whole)
	}
	return closeUnless(f, err)
}

// statShared describes what is on a volume, without opening it.
func (s *step) statShared(name string, flag int) (fs.FileInfo, error) {
	f, err := openBeneath(s.Root+mainFiles, name, unix.O_PATH|flag, inMain)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

// writeTarball packs an output on a volume, as the emissary packs others.
func (s *step) writeTarball(w io.Writer, name string, strategy *executor.TarStrategy) error {
	level := gzip.NoCompression
	if strategy != nil {
		level = gzip.DefaultCompression
		if strategy.CompressionLevel != nil {
			level = int(*strategy.CompressionLevel)
		}
	}
	err := argo.WriteArchive(w, s.Root+mainFiles, name, s.Root+"/", level)
	failed := (*fs.PathError)(nil)
	if !errors.As(err, &failed) {
		return err
	}
	if path.IsAbs(failed.Path) {
		return failed
	}
	return &fs.PathError{Op: failed.Op, Path: path.Join(s.Root+mainFiles, name, failed.Path), Err: failed.Err}
}

// zipShared packs an output on a volume. Upstream keeps of a link to a folder only the link, as an empty file.
func (s *step) zipShared(w io.Writer, name string, from *os.File) error {
	info, err := s.statShared(name, unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	target, err := from.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() || !target.IsDir() {
		return writeZip(w, from)
	}
	archive := zip.NewWriter(w)
	if _, err := archive.Create(path.Base(name)); err != nil {
		return err
	}
	return archive.Close()
}

// writeZip writes a regular file, or the files below a folder, as upstream does (util/archive's ZipToWriter). The name of
// the open file is its path: a file is kept by its path, the files of a folder below the last part of it. Whatever is
// neither a file nor a folder becomes an empty file.
func writeZip(w io.Writer, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	archive := zip.NewWriter(w)
	if info.Mode().IsRegular() {
		err = zipFile(archive, from.Name(), from)
	} else {
		err = artifact.Walk(from, func(e artifact.Entry) error {
			if e.Mode.IsDir() {
				return nil
			}
			name := path.Join(path.Base(from.Name()), e.Name)
			if !e.Mode.IsRegular() {
				_, err := archive.Create(name)
				return err
			}
			f, err := e.Open()
			if err != nil {
				return err
			}
			defer f.Close()
			return zipFile(archive, name, f)
		})
	}
	if err != nil {
		return err
	}
	return archive.Close()
}

func zipFile(archive *zip.Writer, name string, f *os.File) error {
	w, err := archive.Create(name)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	// Others may write on, without end.
	_, err = io.Copy(w, io.NewSectionReader(f, 0, info.Size()))
	return err
}
