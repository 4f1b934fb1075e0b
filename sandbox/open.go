package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotRegular is returned by OpenFile for a directory, device, FIFO or socket.
var ErrNotRegular = errors.New("not a regular file")

// OpenFile opens a regular file of the container for reading. path is resolved
// with the container's own idea of "/". Nothing but a regular file is opened: a
// FIFO or a device planted there cannot make the daemon wait or act.
func (s *Sandbox) OpenFile(path string) (*os.File, error) {
	found := -1
	err := s.thread.do(func() error {
		var err error
		found, err = s.findFile(path)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(found)
	// By its descriptor: at its path there may be a device by now. The sandbox's thread may not see the host's /proc.
	fd, err := unix.Open(descriptorPath(found), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, pathError("open in the container's root", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// findFile returns an O_PATH descriptor of a regular file.
func (s *Sandbox) findFile(path string) (int, error) {
	fd, err := s.find(path)
	if err != nil {
		return -1, pathError("open in the container's root", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, pathError("stat", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, pathError("open in the container's root", path, fmt.Errorf("%w: it is a %s", ErrNotRegular, fileKind(st.Mode)))
	}
	return fd, nil
}

func (s *Sandbox) find(path string) (int, error) {
	if len(s.served) == 0 {
		return openat2(s.root, path, unix.O_PATH, 0)
	}
	d := descent{root: s.root, served: s.served}
	defer d.leave(0)
	return d.to(path)
}

// served is an artifact in the root.
type served struct {
	at     string // where it was mounted, without links
	device uint32 // of its file system: a guest can rename the folder in which it is
}

// descent follows a path from one descriptor to the next, links too, and looks up nothing below an artifact: that is a
// request to a process that may not answer. Neither a link nor a folder can be exchanged between the check and the use.
type descent struct {
	root   int
	served []served
	opened []int // below the root
}

func (d *descent) to(path string) (int, error) {
	links, left := 0, maxSteps
	for rest := strings.Split(path, "/"); len(rest) > 0; {
		if len(rest) > left {
			return -1, unix.ELOOP
		}
		left--
		var name string
		name, rest = rest[0], rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			d.leave(max(len(d.opened)-1, 0))
			continue
		}
		target, isLink, err := d.enter(name)
		if err != nil {
			return -1, err
		}
		if !isLink {
			continue
		}
		if links++; links > maxLinks {
			return -1, unix.ELOOP
		}
		if strings.HasPrefix(target, "/") {
			d.leave(0)
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return unix.FcntlInt(uintptr(d.at()), unix.F_DUPFD_CLOEXEC, 0)
}

// at is the descriptor of the place that has been reached.
func (d *descent) at() int {
	if n := len(d.opened); n > 0 {
		return d.opened[n-1]
	}
	return d.root
}

// enter goes on to what has a name in the folder that has been reached, or returns the target of a link.
func (d *descent) enter(name string) (target string, isLink bool, err error) {
	fd, err := openHow(d.at(), name, unix.O_PATH|unix.O_NOFOLLOW, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return "", false, err
	}
	var st unix.Statx_t
	if err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err == nil {
		err = d.avoid(st)
	}
	if err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
		defer unix.Close(fd)
		if err == nil {
			target, err = linkTarget(fd)
		}
		return target, true, err
	}
	d.opened = append(d.opened, fd)
	return "", false, nil
}

// avoid returns an error for a file of an artifact.
func (d *descent) avoid(st unix.Statx_t) error {
	i := slices.IndexFunc(d.served, func(a served) bool { return st.Dev_major == 0 && st.Dev_minor == a.device })
	if i < 0 {
		return nil
	}
	return fmt.Errorf("it leads into the artifact at %s: a module has to be in the image or on a volume", d.served[i].at)
}

// leave goes back to the place that is n names below the root.
func (d *descent) leave(n int) {
	for _, fd := range d.opened[n:] {
		unix.Close(fd)
	}
	d.opened = d.opened[:n]
}

func fileKind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "device"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "special file"
}
