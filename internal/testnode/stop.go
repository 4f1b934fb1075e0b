package testnode

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/leaks"
	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
)

// Stop ends the node and removes all of it: containerd, the remaining tasks and shims, their
// mounts and cgroups, and the node's folder. What tests left behind is not an error here; see
// [Node.Leaks]. A data race that a shim built with Go's race detector has found is an error.
func (n *Node) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	sockets, _, err := n.listeners()
	return errors.Join(err, n.Terminate(), n.dataRaces(), n.killAll(ctx), n.unmountAll(), leaks.RemoveCgroups(ctx, n.cgroups), n.removeState(sockets))
}

// dataRaces returns the reports of Go's race detector in the log, as an error.
func (n *Node) dataRaces() error {
	log, err := os.ReadFile(n.Log())
	if err != nil {
		return err
	}
	const frame = "==================\n" // around each report
	_, report, found := strings.Cut(string(log), frame+"WARNING: DATA RACE\n")
	if !found {
		return nil
	}
	report, _, _ = strings.Cut(report, frame)
	return fmt.Errorf("%d data races, the first of them:\n%s", strings.Count(string(log), "WARNING: DATA RACE\n"), report)
}

// killAll kills the node's processes until none is left: a shim may start one during the search.
func (n *Node) killAll(ctx context.Context) error {
	return poll.Until(ctx, func() (bool, error) {
		own, err := n.processes()
		if err != nil {
			return false, err
		}
		alive := 0
		for _, p := range own {
			if p.state == "Z" {
				continue // its parent must reap it
			}
			alive++
			if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return false, err
			}
		}
		// Frozen processes die when they are thawed.
		return alive == 0, n.thaw()
	})
}

// thaw ends the pause of every container of the node (cgroup v1's freezer and v2).
func (n *Node) thaw() error {
	cgroups, err := n.cgroups()
	if err != nil {
		return err
	}
	for _, cgroup := range cgroups {
		for file, value := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
			err := writeExisting(filepath.Join(cgroup, file), value)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
				return err
			}
		}
	}
	return nil
}

func writeExisting(path, value string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(value)
	return errors.Join(err, file.Close())
}

// unmountAll unmounts everything below the node's folder, the last mount first.
func (n *Node) unmountAll() error {
	points, err := n.mounts()
	for _, point := range slices.Backward(points) {
		if failed := unix.Unmount(point, unix.MNT_DETACH); failed != nil && failed != unix.EINVAL {
			err = errors.Join(err, &fs.PathError{Op: "unmount", Path: point, Err: failed})
		}
	}
	return err
}

// removeState removes the files that the node and the shims could not remove themselves.
func (n *Node) removeState(sockets map[string]bool) error {
	failures := []error{
		os.RemoveAll(filepath.Join(runcState, n.Namespace)),
		os.RemoveAll(n.Dir),
	}
	for socket := range sockets {
		if filepath.IsAbs(socket) {
			failures = append(failures, os.RemoveAll(socket))
		}
	}
	return errors.Join(failures...)
}
