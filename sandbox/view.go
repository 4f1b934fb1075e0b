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

// view is a root file system that is mounted for inspection only.
type view struct {
	mounts []Mount
	used   bool // volumes have been mounted in it
}

// scratchPath is the place of a view's writes, beside the container's root file system.
const scratchPath = "/scratch"

// ViewRootfs shows the root file system that MountRootfs would mount, for inspection, and
// leaves no trace in it: an overlay's upper folder becomes one more lower folder, and the mount points
// that MountAll makes are discarded. So another runtime can mount it afterwards as if for the
// first time, even if that works only once (overlay's "volatile"). MountRootfs replaces the view.
//
// A file system that two mounts would each use exclusively, as on a loop device, cannot be
// viewed: that is an error like any other.
// See RATIONALE.md, "Why is a root file system only looked at first?"
func (s *Sandbox) ViewRootfs(mounts []Mount, root *specs.Root, bundle string) error {
	views := make([]Mount, len(mounts))
	for i, m := range mounts {
		if slices.Contains(m.Options, loopOption) {
			return fmt.Errorf("look at root file system (%s from %s): on a loop device it can be mounted once only", m.Type, m.Source)
		}
		views[i] = readOnly(m)
	}
	if err := s.MountRootfs(views, root, bundle); err != nil {
		return err
	}
	s.view = &view{mounts: views}
	return nil
}

// readOnly turns the folder that an overlay writes to into one that it reads, above all others.
func readOnly(m Mount) Mount {
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
		case "workdir", "volatile", "index", "nfs_export", "uuid":
			// These make an overlay write in its folders, or are needed for that.
		default:
			options = append(options, option)
		}
	}
	for i, option := range options {
		if list, ok := strings.CutPrefix(option, "lowerdir="); ok {
			options[i] = "lowerdir=" + upper + list
		}
	}
	m.Options = options
	return m
}

// useView lets mount points be made in a view: its overlays are mounted once more, with folders of
// ours to write to.
func (s *Sandbox) useView() error {
	if s.view == nil || s.view.used {
		return nil
	}
	s.view.used = true
	upper, work := s.base+scratchPath+"/upper", s.base+scratchPath+"/work"
	writable, overlays := slices.Clone(s.view.mounts), 0
	for i, m := range writable {
		if m.Type == "overlay" {
			writable[i].Options = append(slices.Clone(m.Options), "upperdir="+upper, "workdir="+work)
			overlays++
		}
	}
	if overlays == 0 {
		return nil
	}
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("prepare to mount volumes for a look: %w", err)
		}
	}
	return s.mountRootfs(writable, nil, "")
}

// leaveView makes room for the root file system itself. An unused view may stay
// below: unmounting it would cost a grace period of the kernel.
func (s *Sandbox) leaveView() error {
	left := s.view
	s.view = nil
	if left == nil || !left.used {
		return nil
	}
	for {
		err := unix.Unmount(s.base+rootfsPath, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) {
			break // no mount is left there
		}
		if err != nil {
			return fmt.Errorf("leave the view of the root file system: %w", err)
		}
	}
	if err := os.RemoveAll(s.base + scratchPath); err != nil {
		return fmt.Errorf("leave the view of the root file system: %w", err)
	}
	return nil
}
