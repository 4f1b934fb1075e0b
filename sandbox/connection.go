package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Connection is the kernel's side of a file system that another process serves. It outlives that process if a copy of the
// descriptor of /dev/fuse does, and then requests wait for an answer that nobody gives. A process that waits for one cannot
// be killed once the request has been read (fuse.rst of the kernel's documentation, "Interrupting filesystem operations").
type Connection struct {
	number uint32 // of the file system's device
	abort  *os.File
}

// connectionOf returns the connection of a mount. It makes no request.
func connectionOf(mount *os.File) (*Connection, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(mount.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
		return nil, fmt.Errorf("find the connection of a FUSE mount: %w", err)
	}
	return openConnection(st.Dev_minor)
}

// openConnection opens the connection with a number, which is that of the file system's device. The kernel gives the number
// to another one when it has ended; the open file stays that of the old one (fuse_ctl_remove_conn in fs/fuse/control.c).
func openConnection(number uint32) (*Connection, error) {
	// Not by /sys: nothing need be mounted there.
	control, err := newFilesystem("fusectl", "", mountOptions{})
	if err != nil {
		return nil, err
	}
	defer unix.Close(control)
	name := fmt.Sprintf("%d/abort", number)
	fd, err := unix.Openat(control, name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "fusectl:" + name, Err: err}
	}
	return &Connection{number: number, abort: os.NewFile(uintptr(fd), name)}, nil
}

// Abort ends the connection: all requests fail, those that wait and those that come. It is a no-op if it has ended.
func (c *Connection) Abort() error {
	if _, err := c.abort.WriteString("1"); err != nil {
		return fmt.Errorf("abort a FUSE connection: %w", err)
	}
	return nil
}

// Close gives up the handle. The connection goes on.
func (c *Connection) Close() error { return c.abort.Close() }

// AbortConnections aborts the connections of all artifacts that are mounted where a process is, which is to be killed: it
// may wait for one of them. It is a no-op for a process that has ended.
func AbortConnections(pid int, handle *os.File) error {
	return abortConnections(func() ([]uint32, error) {
		numbers, err := artifactsAt(pid)
		if unix.PidfdSendSignal(int(handle.Fd()), 0, nil, 0) != nil {
			return nil, nil // the number may be that of another process
		}
		return numbers, err
	})
}

// abortConnections aborts the connections with the numbers that list returns. The kernel may give a number to another
// connection while it is looked for, so those count that are still in the list when they have been opened.
func abortConnections(list func() ([]uint32, error)) error {
	numbers, failed := list()
	var opened []*Connection
	for _, number := range numbers {
		c, err := openConnection(number)
		if err == nil {
			opened = append(opened, c)
		} else if !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	numbers, err := list()
	failed = errors.Join(failed, err)
	for _, c := range opened {
		if slices.Contains(numbers, c.number) {
			failed = errors.Join(failed, c.Abort())
		}
		failed = errors.Join(failed, c.Close())
	}
	return failed
}

// artifactsAt returns the numbers of the artifacts that are mounted where a process is, none for one that has ended.
func artifactsAt(pid int) ([]uint32, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if isOver(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	numbers, err := artifactDevices(f)
	if isOver(err) {
		return nil, nil
	}
	return numbers, err
}

// isOver reports whether a process is gone, or has ended and is not reaped: then it has no mounts (mounts_open_common in
// fs/proc_namespace.c).
func isOver(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) }

// artifactDevices returns the minor numbers of the devices of our mounts in a file like /proc/PID/mountinfo (proc(5)).
func artifactDevices(mountinfo io.Reader) ([]uint32, error) {
	var found []uint32
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields, of := strings.Fields(before), strings.Fields(after)
		if len(fields) < 3 || len(of) < 2 || of[0] != "fuse" || of[1] != fuseSource {
			continue
		}
		_, minor, _ := strings.Cut(fields[2], ":")
		number, err := strconv.ParseUint(minor, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read the device of a mount in %q: %w", lines.Text(), err)
		}
		found = append(found, uint32(number))
	}
	return found, lines.Err()
}
