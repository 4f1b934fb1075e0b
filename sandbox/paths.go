package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The kernel resolves every path of a container beneath its root (openat2(2)), and we use the
// resulting descriptor: links of the image, absolute ones and ".." among them, stay inside,
// and no file can be exchanged between the check and the use.

// openat2 opens path beneath root with the container's idea of "/": symbolic
// links, absolute ones too, and ".." stay inside; magic links are refused.
func openat2(root int, path string, flags uint64, mode uint64) (int, error) {
	return openHow(root, path, flags, mode, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

func openHow(root int, path string, flags, mode, resolve uint64) (int, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Mode: mode, Resolve: resolve}
	for {
		// EAGAIN: a rename elsewhere raced with "..", openat2(2).
		fd, err := unix.Openat2(root, path, how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// clean returns a path of a specification as runc reads it: from "/" on, and without
// "." and "..", which are removed from the text before any link is followed.
func clean(path string) string { return filepath.Clean("/" + path) }

// mountpoint returns an O_PATH descriptor of path beneath root, and the path that it has there
// without links. It creates missing parts, as runc does: directories of mode 0755, and at the end a
// directory or an empty file of mode 0644. A dangling link is followed, and its target is created.
// The root itself is refused: a mount on top of it would hide it from the guest, but not from us.
// See RATIONALE.md, "Why are mount points made exactly as runc makes them?"
func mountpoint(root int, path string, isDir bool) (fd int, at string, err error) {
	path = clean(path)
	if path == "/" {
		return -1, "", pathError("open mount point", path, errIsRoot)
	}
	// Usually there is no link on the way.
	fd, err = openHow(root, path, unix.O_PATH, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS)
	at = path
	if errors.Is(err, unix.ELOOP) {
		fd, at, err = followToMountpoint(root, path)
	}
	if errors.Is(err, unix.ENOENT) {
		fd, at, err = makeMountpoint(root, path, isDir)
	}
	return fd, at, pathError("open mount point", path, err)
}

var errIsRoot = errors.New("it is the root of the container's file system")

func followToMountpoint(root int, path string) (int, string, error) {
	fd, err := openat2(root, path, unix.O_PATH, 0)
	if err != nil {
		return -1, "", err
	}
	at, ok := pathBelow(root, fd)
	if !ok {
		unix.Close(fd)
		return -1, "", errIsRoot
	}
	return fd, "/" + at, nil
}

func makeMountpoint(root int, path string, isDir bool) (int, string, error) {
	names, err := expand(root, path)
	if err != nil {
		return -1, "", err
	}
	if len(names) == 0 {
		return -1, "", errIsRoot
	}
	at := "/" + strings.Join(names, "/")
	if isDir {
		fd, err := makeDirs(root, names)
		return fd, at, err
	}
	last := len(names) - 1
	parent, err := makeDirs(root, names[:last])
	if err != nil {
		return -1, "", err
	}
	defer unix.Close(parent)
	if err := unix.Mknodat(parent, names[last], unix.S_IFREG|0o644, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, "", err
	}
	// A link that was put there meanwhile is not followed.
	fd, err := openHow(parent, names[last], unix.O_PATH, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	return fd, at, err
}

// mkdirAll creates the directory path beneath root and returns it opened.
func mkdirAll(root int, path string) (int, error) {
	path = clean(path)
	fd, err := openat2(root, path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		var names []string
		if names, err = expand(root, path); err == nil {
			fd, err = makeDirs(root, names)
		}
	}
	if err != nil {
		return -1, pathError("create directory", path, err)
	}
	return fd, nil
}

// makeIn calls create to make a file at path beneath root, with the file's directory, which is created if it is
// missing, and the file's name there. If path exists already, a link is followed, and
// anything else stays.
func makeIn(root int, path string, create func(dir int, name string) error) error {
	path = clean(path)
	// Usually the directory exists and the name is free.
	dir, err := openat2(root, filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		err = create(dir, filepath.Base(path))
		unix.Close(dir)
	}
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	names, err := expand(root, path)
	if err != nil || len(names) == 0 {
		return err
	}
	last := len(names) - 1
	if dir, err = makeDirs(root, names[:last]); err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := create(dir, names[last]); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// Bounds of a walk through an image, whose links can make a path endless.
const (
	maxLinks = 40   // as many as the kernel follows in one path (path_resolution(7))
	maxSteps = 4096 // names, "." and ".." among them
)

// expand returns the names on the way from root to path with every link replaced by its
// target. A missing name is taken for a directory that is to be made; so "missing/.." is
// where it began. That is how runc finds a mount point behind a dangling link
// (SecureJoin of github.com/cyphar/filepath-securejoin). The files may change after the walk, so
// the caller must not follow links.
func expand(root int, path string) ([]string, error) {
	return newWalk(root, func(string) {}).expand(path)
}

// walk follows paths name by name. All of them together take at most maxSteps: each step costs system calls,
// and one link can hold two thousand names.
type walk struct {
	root int
	left int // steps
	// pass is called for each place on the way, links among them, with a path from root without a link before its end.
	pass func(place string)
}

func newWalk(root int, pass func(place string)) *walk {
	return &walk{root: root, left: maxSteps, pass: pass}
}

// isOver reports whether a path was given up because the steps are used up.
func (w *walk) isOver() bool { return w.left <= 0 }

func (w *walk) expand(path string) ([]string, error) {
	var names []string
	links := 0
	for rest := strings.Split(path, "/"); len(rest) > 0; {
		if len(rest) > w.left {
			w.left = 0 // it cannot be walked to its end
			return nil, unix.ELOOP
		}
		w.left--
		var name string
		name, rest = rest[0], rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			names = names[:max(len(names)-1, 0)]
			continue
		}
		names = append(names, name)
		w.pass("/" + strings.Join(names, "/"))
		target, isLink, err := readLink(w.root, strings.Join(names, "/"))
		if err != nil {
			return nil, err
		}
		if !isLink {
			continue
		}
		if links++; links > maxLinks {
			return nil, unix.ELOOP
		}
		names = names[:len(names)-1]
		if filepath.IsAbs(target) {
			names = nil
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return names, nil
}

// readLink returns the target of the symbolic link at path beneath root; no other link may
// lie on the way. isLink is false for a missing file and for any other file.
func readLink(root int, path string) (target string, isLink bool, err error) {
	fd, err := openHow(root, path, unix.O_PATH|unix.O_NOFOLLOW, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if isAbsent(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", false, nil
	}
	target, err = linkTarget(fd)
	return target, true, err
}

func linkTarget(fd int) (string, error) {
	text := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", text)
	return string(text[:max(n, 0)]), err
}

// makeDirs opens the directory at the names below root, follows no link on the way, and creates missing
// directories.
func makeDirs(root int, names []string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY
	fd, err := openHow(root, "./"+strings.Join(names, "/"), flags, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if !errors.Is(err, unix.ENOENT) || len(names) == 0 {
		return fd, err
	}
	last := len(names) - 1
	parent, err := makeDirs(root, names[:last])
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if err := unix.Mkdirat(parent, names[last], 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return openHow(parent, names[last], flags, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
}

// pathBelow returns the kernel's path of an open file below root, without links and without
// the first slash. It finds no file that has been moved or removed since.
func pathBelow(root, fd int) (string, bool) {
	top, err := os.Readlink(descriptorPath(root))
	if err != nil {
		return "", false
	}
	path, err := os.Readlink(descriptorPath(fd))
	if err != nil {
		return "", false
	}
	return strings.CutPrefix(path, strings.TrimSuffix(top, "/")+"/")
}

func isAbsent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// descriptorPath names an open descriptor for calls that take only a path. It
// needs the host's /proc, so it works until the root is changed.
func descriptorPath(fd int) string {
	return fmt.Sprintf("/proc/self/fd/%d", fd)
}
