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

// view is a root file system that is shown to be looked at.
type view struct {
	mounts []Mount
	used   bool // volumes have been mounted in it
}

// scratchPath is where, beside the container's root file system, a view keeps what is written.
const scratchPath = "/scratch"

// ViewRootfs shows the root file system that MountRootfs would mount, to look at what it holds, and
// leaves no trace of that in it: an overlay's own folder is one more that is read, and what MountAll
// writes for its mount points goes nowhere. So another runtime can mount it afterwards as if
// nobody had, also where that works only once (overlay's "volatile"). MountRootfs takes its place.
//
// A file system that two mounts would each hold for their own, as on a loop device, is not looked
// at: that is an error like any other.
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

// leaveView makes place for the root file system itself. A view that was not used may stay
// below: to take it away would cost a grace period of the kernel's.
func (s *Sandbox) leaveView() error {
	left := s.view
	s.view = nil
	if left == nil || !left.used {
		return nil
	}
	for {
		err := unix.Unmount(s.base+rootfsPath, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) {
			break // nothing is mounted there any more
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
