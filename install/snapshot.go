package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Snapshot holds files as they were, to put them back. It keeps them open instead of
// copying them. Install replaces files and never writes into them, so an open file
// stays as it was, and a crash leaves nothing behind.
type Snapshot struct {
	files []savedFile
}

type savedFile struct {
	path     string
	content  *os.File // nil: there was none
	mode     fs.FileMode
	uid, gid int
}

// TakeSnapshot opens the files at the paths, those of a Report for example. One that
// does not exist will be removed by Restore. Close must be called in the end.
func TakeSnapshot(paths []string) (*Snapshot, error) {
	s := &Snapshot{}
	for _, path := range paths {
		saved, err := save(path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("remember %s: %w", path, err), s.Close())
		}
		s.files = append(s.files, saved)
	}
	return s, nil
}

func save(path string) (savedFile, error) {
	// What is written over a symbolic link goes to its target (see put).
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return savedFile{path: path}, nil
	}
	if err != nil {
		return savedFile{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return savedFile{}, errors.Join(err, f.Close())
	}
	uid, gid := ownerOf(info)
	return savedFile{path: path, content: f, mode: info.Mode().Perm(), uid: uid, gid: gid}, nil
}

// ownerOf returns user and group, or -1, which chown(2) takes for no change.
func ownerOf(info fs.FileInfo) (uid, gid int) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid), int(stat.Gid)
	}
	return -1, -1
}

// Restore puts every file back, the last one first, and goes on after an error.
func (s *Snapshot) Restore() error {
	var failures []error
	for _, saved := range slices.Backward(s.files) {
		if err := saved.restore(); err != nil {
			failures = append(failures, fmt.Errorf("put %s back: %w", saved.path, err))
		}
	}
	return errors.Join(failures...)
}

func (f savedFile) restore() error {
	if f.content == nil {
		return put(f.path, nil)
	}
	if _, err := f.content.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return replace(f.path, f.mode, f.uid, f.gid, func(w io.Writer) error {
		_, err := io.Copy(w, f.content)
		return err
	})
}

// Close lets go of the files.
func (s *Snapshot) Close() error {
	var failures []error
	for _, saved := range s.files {
		if saved.content != nil {
			failures = append(failures, saved.content.Close())
		}
	}
	return errors.Join(failures...)
}
