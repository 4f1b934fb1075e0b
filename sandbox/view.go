package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// viewPath is where, beside the container's root file system, a view of it keeps what is written.
const viewPath = "/view"

// ViewRootfs shows the root file system that MountRootfs would mount, to look at what it holds, and
// leaves no trace of that in it: an overlay's own folders are read only, and what is written, as the
// mount points of MountAll, goes nowhere. So another runtime can mount it afterwards as if
// nobody had, also where that works only once (overlay's "volatile"). MountRootfs takes its place.
//
// A file system that two mounts would each hold for their own, as on a loop device, is not looked
// at: that is an error like any other.
func (s *Sandbox) ViewRootfs(mounts []Mount, root *specs.Root, bundle string) error {
	views := make([]Mount, len(mounts))
	for i, m := range mounts {
		if slices.Contains(m.Options, loopOption) {
			return fmt.Errorf("look at root file system (%s from %s): on a loop device it can be mounted once only", m.Type, m.Source)
		}
		views[i] = s.view(m)
	}
	err := s.thread.do(func() error {
		for _, dir := range []string{s.base + viewPath, s.base + viewPath + "/upper", s.base + viewPath + "/work"} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return fmt.Errorf("look at root file system: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.MountRootfs(views, root, bundle)
}

// view turns the folder that an overlay writes to into one that it reads, above all others.
func (s *Sandbox) view(m Mount) Mount {
	if m.Type != "overlay" {
		return m
	}
	var upper string
	var options []string
	for _, option := range m.Options {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "upperdir":
			upper = value + ":"
		case "workdir", "volatile", "index", "nfs_export", "uuid", "ro":
			// What an overlay notes in its folders, or needs for that.
		default:
			options = append(options, option)
		}
	}
	for i, option := range options {
		if list, ok := strings.CutPrefix(option, "lowerdir="); ok {
			options[i] = "lowerdir=" + upper + list
		}
	}
	m.Options = append(options, "upperdir="+s.base+viewPath+"/upper", "workdir="+s.base+viewPath+"/work")
	return m
}

// leaveView takes away what was mounted before and what was written there.
func (s *Sandbox) leaveView(target string) error {
	if s.root < 0 {
		return nil
	}
	unix.Close(s.root)
	s.root = -1
	for {
		err := unix.Unmount(target, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) {
			break // nothing is mounted there any more
		}
		if err != nil {
			return fmt.Errorf("leave the view of the root file system: %w", err)
		}
	}
	if err := os.RemoveAll(s.base + viewPath); err != nil {
		return fmt.Errorf("leave the view of the root file system: %w", err)
	}
	return nil
}
