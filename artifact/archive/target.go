package archive

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Target is where an archive is unpacked. Names are relative and clean, and do not lead out by "..".
type Target interface {
	// Folder makes a folder that may be there, and those above it, with these permissions.
	Folder(name string, mode fs.FileMode) error
	// Link makes a symbolic link, and the folders above it.
	Link(name, target string) error
	File(File) error
}

// File is a regular file of an archive.
type File struct {
	Name     string
	Size     int64
	Mode     fs.FileMode // only permissions
	Above    fs.FileMode // permissions of missing folders above the file
	Accessed time.Time   // zero for the time of unpacking
	Modified time.Time   // zero for the time of unpacking
	Flags    int         // with which Argo opens the file
	Open     func() (io.ReadCloser, error)
}

// linkAbove are the permissions of missing folders above a link.
const linkAbove fs.FileMode = 0o755

// Folder is a folder on a disk as a [Target]. Files that are there are overwritten, as Argo does.
type Folder struct{ *os.Root }

var _ Target = Folder{}

// Folder makes a folder.
func (f Folder) Folder(name string, mode fs.FileMode) error { return f.MkdirAll(name, mode) }

// Link makes a symbolic link.
func (f Folder) Link(name, target string) error {
	if err := f.MkdirAll(filepath.Dir(name), linkAbove); err != nil {
		return err
	}
	return f.Symlink(target, name)
}

// File writes a file.
func (f Folder) File(file File) error {
	content, err := file.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	if err := f.MkdirAll(filepath.Dir(file.Name), file.Above); err != nil {
		return err
	}
	out, err := f.OpenFile(file.Name, file.Flags|unix.O_NONBLOCK, file.Mode)
	if err != nil {
		return err
	}
	if err = isRegular(out); err == nil {
		_, err = io.Copy(out, content)
	}
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err != nil || file.Accessed.IsZero() && file.Modified.IsZero() {
		return err
	}
	return f.Chtimes(file.Name, file.Accessed, file.Modified)
}

func isRegular(f *os.File) error {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "write", Path: f.Name(), Err: errors.New("it is not a regular file")}
	}
	return err
}

// maxPath bounds a path in an archive, in bytes, as the kernel bounds one (PATH_MAX).
const maxPath = 4095

// inside returns a path of an archive, cleaned. It reports whether the path is one below the folder.
func inside(name string) (string, bool) {
	clean := strings.TrimLeft(filepath.Clean("/"+name), "/")
	relative := filepath.Clean(name)
	return clean, clean != "" && len(name) <= maxPath && relative != ".." && !strings.HasPrefix(relative, "../")
}

// escapes reports whether err says that a path leads out of a folder. Package os has no name for the error, and wraps it
// once more if a folder on the way is a link.
func escapes(err error) bool {
	for failed := (*fs.PathError)(nil); errors.As(err, &failed); err = failed.Err {
		if failed.Err != nil && failed.Err.Error() == "path escapes from parent" {
			return true
		}
	}
	return false
}
