package sandbox

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestHierarchy(t *testing.T) {
	for _, c := range []struct{ controller, path, want string }{
		{"memory", "/sys/fs/cgroup/memory/pod/container", "memory"},
		{"cpu", "/sys/fs/cgroup/cpu,cpuacct/pod/container", "cpu,cpuacct"},
		{"cpuacct", "/sys/fs/cgroup/cpu,cpuacct/pod/container", "cpu,cpuacct"},
		{"name=systemd", "/sys/fs/cgroup/systemd/pod", "systemd"},
		{"name=systemd", "/elsewhere/systemd/pod", "systemd"},
		{"", "/sys/fs/cgroup/unified/pod", ""},
	} {
		if got := hierarchy(c.controller, c.path); got != c.want {
			t.Errorf("%s at %s: got %q, want %q", c.controller, c.path, got, c.want)
		}
	}
}

// When two controllers share a hierarchy, each is found by its own name.
func TestAttachHierarchies(t *testing.T) {
	shared, own := t.TempDir(), t.TempDir()
	s, err := New(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.MountRootfs(nil, &specs.Root{Path: t.TempDir()}, ""); err != nil {
		t.Fatal(err)
	}
	err = s.thread.do(func() error {
		trees, err := cgroupTrees(map[string]string{"cpu": shared, "memory": own, "": own}, mountOptions{})
		defer closeAll(trees)
		if err != nil {
			return err
		}
		trees["cpu,cpuacct"] = trees["cpu"]
		delete(trees, "cpu")
		if err := attachCgroup(s.root, "/cgroup", trees, mountOptions{}); err != nil {
			return err
		}
		for path, wanted := range map[string]bool{"/cgroup/cpu": true, "/cgroup/cpuacct": true, "/cgroup/cpu,cpuacct": true, "/cgroup/memory": true, "/cgroup/unified": false} {
			fd, err := openat2(s.root, path, unix.O_PATH, 0)
			if (err == nil) != wanted {
				t.Errorf("%s: %v", path, err)
			}
			if err == nil {
				unix.Close(fd)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
