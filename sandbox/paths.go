package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Every path of a container is resolved beneath its root by the kernel (openat2(2)) and used as
// the descriptor that came of it: links of the image, absolute ones and ".." among them, stay inside,
// and nothing can be exchanged between a look and an act.

// openInRoot opens path beneath root with the container's idea of "/": symbolic
// links, absolute ones too, and ".." stay inside; magic links are refused.
func openInRoot(root int, path string, flags uint64, mode uint64) (int, error) {
	fd, err := openat2(root, path, flags, mode)
	if err != nil {
		return -1, &os.PathError{Op: "open in the container's root", Path: path, Err: err}
	}
	return fd, nil
}

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
// "." and "..", which are taken out of the text before any link is looked at.
func clean(path string) string { return filepath.Clean("/" + path) }

// mountpoint returns an O_PATH descriptor of path beneath root and creates what
// is missing of it, as runc does: directories of mode 0755, and at the end a directory or an
// empty file of mode 0644. A link that leads to nothing is followed, and what it names is made.
func mountpoint(root int, path string, isDir bool) (int, error) {
	path = clean(path)
	fd, err := openat2(root, path, unix.O_PATH, 0)
	if errors.Is(err, unix.ENOENT) {
		fd, err = makeMountpoint(root, path, isDir)
	}
	if err != nil {
		return -1, pathError("open mount point", path, err)
	}
	if err := checkBelow(root, fd); err != nil {
		unix.Close(fd)
		return -1, pathError("open mount point", path, err)
	}
	return fd, nil
}

func makeMountpoint(root int, path string, isDir bool) (int, error) {
	if isDir {
		return mkdirAll(root, path)
	}
	parent, name, err := mkdirParent(root, path)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if err := unix.Mknodat(parent, name, unix.S_IFREG|0o644, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	// Not through a link that somebody has put there meanwhile.
	return openHow(parent, name, unix.O_PATH, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
}

// checkBelow fails for the root itself: a mount on top of it would hide the root file system
// from the guest, but not from us.
func checkBelow(root, fd int) error {
	var top, st unix.Statx_t
	for at, to := range map[int]*unix.Statx_t{root: &top, fd: &st} {
		if err := unix.Statx(at, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_MNT_ID, to); err != nil {
			return err
		}
	}
	if top.Ino == st.Ino && top.Mnt_id == st.Mnt_id {
		return errors.New("it is the root of the container's file system")
	}
	return nil
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

// mkdirParent creates the directory that path lies in once its last link is followed, and
// returns it opened with the name that is left. Nobody has looked at what has that name.
func mkdirParent(root int, path string) (int, string, error) {
	names, err := expand(root, clean(path))
	if err != nil {
		return -1, "", pathError("resolve", path, err)
	}
	if len(names) == 0 {
		return -1, "", pathError("resolve", path, unix.EISDIR)
	}
	last := len(names) - 1
	fd, err := makeDirs(root, names[:last])
	if err != nil {
		return -1, "", pathError("create directory of", path, err)
	}
	return fd, names[last], nil
}

// maxLinks is how many links the kernel follows in one path (path_resolution(7)).
const maxLinks = 40

// expand returns the names on the way from root to path with every link replaced by what it
// says. What does not exist is taken for a directory that is to be made; so "missing/.." is
// where it began. That is how runc finds a mount point behind a link that leads to nothing
// (SecureJoin of github.com/cyphar/filepath-securejoin). The answer is a wish, not a fact:
// whoever uses it must follow no link.
func expand(root int, path string) ([]string, error) {
	return walk(root, path, func(string) {})
}

// walk is expand that tells of each place on the way, links among them, as a path from root without a link
// before its end.
func walk(root int, path string, pass func(place string)) ([]string, error) {
	var names []string
	links := 0
	for rest := strings.Split(path, "/"); len(rest) > 0; {
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
		pass("/" + strings.Join(names, "/"))
		target, isLink, err := readLink(root, strings.Join(names, "/"))
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

// readLink returns the target of the symbolic link at path beneath root, in which no other
// link may lie. Nothing and anything else are no link.
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
	text := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", text)
	return string(text[:max(n, 0)]), true, err
}

// makeDirs goes from root through the named directories, follows no link, makes those that
// are missing, and returns the last one opened.
func makeDirs(root int, names []string) (int, error) {
	at, err := unix.FcntlInt(uintptr(root), unix.F_DUPFD_CLOEXEC, 0)
	for _, name := range names {
		if err != nil {
			return -1, err
		}
		var next int
		next, err = makeDir(at, name)
		unix.Close(at)
		at = next
	}
	return at, err
}

func makeDir(parent int, name string) (int, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(parent, name, flags, 0)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if err := unix.Mkdirat(parent, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return unix.Openat(parent, name, flags, 0)
}

// pathBelow returns where the kernel knows an open file below root, without links and without
// the first slash. What has been moved or removed since is not found there.
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
