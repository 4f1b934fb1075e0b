package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// change is a new content for one file. A nil text means that there is no file.
type change struct {
	path          string
	before, after []byte
	adds          bool   // the runtime; otherwise removes it
	localPull     bool   // adds the setting for pulls, too
	hadLocalPull  bool   // the block that it replaces or removes holds that setting
	entry         string // what it adds, for the operator when it fails
}

func (c change) write() error { return put(c.path, c.after) }
func (c change) undo() error  { return put(c.path, c.before) }

// put replaces the content of the file at path with text, atomically. It keeps mode and
// owner of an existing file. A symbolic link stays one.
func put(path string, text []byte) error {
	if text == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	mode, uid, gid := fs.FileMode(0o644), -1, -1
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(stat.Uid), int(stat.Gid)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create the folder for %s: %w", path, err)
	}
	return replace(path, mode, uid, gid, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

// replace writes a temporary file beside path and renames it over path. The
// temporary name ends in ".tmp", which no import pattern for *.toml matches.
func replace(path string, mode fs.FileMode, uid, gid int, fill func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("replace %s: %w", path, err)
		}
	}()
	if err := fill(f); err != nil {
		return err
	}
	if uid >= 0 {
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
