package sandbox

import (
	"fmt"
	"io"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Sandbox is a root under construction, held by a thread of its own. It ends
// with Launch or with Close, whichever comes first.
type Sandbox struct {
	thread *thread
	base   string
	path   string   // the specification's path of the container's root file system
	root   int      // O_PATH descriptor of the container's root file system
	joined bool     // an exec: the namespaces are those of a running worker
	inside bool     // the thread is in the specification's namespaces
	pids   *os.File // the pid namespace to be entered last, nil for a new one or none
	view   *view    // of a root file system that is only inspected
	served []served // artifacts that are mounted in the root
	// mounted reports whether the mounts of the specification have been made.
	mounted bool
	ended   bool
}

// New makes an empty worker's root at base, an existing directory of the host
// that the caller owns (nothing of it shows on the host). propagation is
// linux.rootfsPropagation of the specification, empty for the default.
func New(base, propagation string) (*Sandbox, error) {
	s := &Sandbox{thread: newThread(), base: base, root: -1}
	if err := s.thread.do(func() error { return newRoot(base, propagation) }); err != nil {
		s.Close()
		return nil, fmt.Errorf("prepare sandbox: %w", err)
	}
	return s, nil
}

// MountRootfs mounts the container's root file system: the snapshotter's mounts
// or, when there are none, root.path of the specification relative to bundle. The view of
// ViewRootfs goes, with everything mounted in it.
func (s *Sandbox) MountRootfs(mounts []Mount, root *specs.Root, bundle string) error {
	return s.thread.do(func() error {
		s.mounted = false
		if err := s.leaveView(); err != nil {
			return err
		}
		s.path = pathOf(root, bundle)
		return s.mountRootfs(mounts, root, bundle)
	})
}

func (s *Sandbox) mountRootfs(mounts []Mount, root *specs.Root, bundle string) error {
	target := s.base + rootfsPath
	if err := mountRootfs(target, mounts, root, bundle); err != nil {
		return err
	}
	if s.root >= 0 {
		unix.Close(s.root)
	}
	return s.openRoot(target)
}

func (s *Sandbox) openRoot(path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError("open root file system", path, err)
	}
	s.root = fd
	return nil
}

// OpenRoot returns the container's root file system for reading. It stays open when the sandbox ends.
func (s *Sandbox) OpenRoot() (*os.Root, error) {
	var root *os.Root
	err := s.thread.do(func() (err error) {
		root, err = os.OpenRoot(s.base + rootfsPath)
		return err
	})
	return root, err
}

// MountAll makes the OCI mounts of the specification. Launch does so itself;
// an earlier call, where MountsDecide, lets OpenFile see files that lie on a volume. Namespaces
// come first, because some file systems (mqueue, sysfs) show those of the
// mounter.
func (s *Sandbox) MountAll(spec *specs.Spec) error {
	return s.thread.do(func() error {
		if err := s.enter(spec); err != nil {
			return err
		}
		if err := s.useView(); err != nil {
			return err
		}
		s.mounted = true
		return mountAll(s.root, spec)
	})
}

// enter enters the specification's namespaces, once, except the pid namespace.
func (s *Sandbox) enter(spec *specs.Spec) error {
	if s.inside {
		return nil
	}
	s.inside = true
	// Its path may lead to another one when it is entered.
	var err error
	if s.pids, err = openPIDNamespace(spec.Linux.Namespaces); err != nil {
		return err
	}
	return enterNamespaces(spec.Linux.Namespaces)
}

// Close abandons the sandbox; everything it mounted goes with its thread. It
// is a no-op after Launch.
func (s *Sandbox) Close() error {
	if s.ended {
		return nil
	}
	s.ended = true
	if s.root >= 0 {
		unix.Close(s.root)
	}
	if s.pids != nil {
		s.pids.Close()
	}
	s.thread.end()
	return nil
}

var _ io.Closer = (*Sandbox)(nil)
