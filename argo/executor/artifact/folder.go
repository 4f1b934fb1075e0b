package artifact

import (
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Entry is something below a folder.
type Entry struct {
	Name string // relative to the folder
	Mode fs.FileMode

	dir  *os.File
	base string
}

// maxName bounds the name of an entry, in bytes, as the kernel bounds a path: folders may be nested deeper.
const maxName = unix.PathMax - 1

// Walk visits everything below an open folder, in the order of filepath.Walk. It follows no link, and opens nothing but
// folders, each below the one before: whatever others exchange meanwhile, it stays below the folder.
func Walk(folder *os.File, visit func(Entry) error) error { return walk(folder, ".", "", visit) }

// walk visits everything in the folder that has a name in another folder.
func walk(parent *os.File, name, prefix string, visit func(Entry) error) error {
	dir, err := openAt(parent, name, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		var stat unix.Stat_t
		err := unix.Fstatat(int(dir.Fd()), name, &stat, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && len(prefix+name) > maxName {
			err = unix.ENAMETOOLONG
		}
		if err != nil {
			return &os.PathError{Op: "lstat", Path: dir.Name() + "/" + name, Err: err}
		}
		e := Entry{Name: prefix + name, Mode: kind(stat.Mode), dir: dir, base: name}
		if err := visit(e); err != nil {
			return err
		}
		if !e.Mode.IsDir() {
			continue
		}
		if err := walk(dir, name, e.Name+"/", visit); err != nil {
			return err
		}
	}
	return nil
}

// Open opens the entry, which must be a regular file. It does not wait for a FIFO that has come in its place.
func (e Entry) Open() (*os.File, error) {
	f, err := openAt(e.dir, e.base, 0)
	if err != nil {
		return nil, err
	}
	if _, err := Size(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openAt opens what has a name in a folder, and is no link.
func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	path := dir.Name() + "/" + name
	if name == "." {
		path = dir.Name()
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// kind returns the kind of a file.
func kind(mode uint32) fs.FileMode {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 0
	case unix.S_IFDIR:
		return fs.ModeDir
	case unix.S_IFLNK:
		return fs.ModeSymlink
	}
	return fs.ModeIrregular
}
