// Package testmount mounts what the tests of a server serve, and lets them open files of it. No shipped binary imports it.
package testmount

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Attach mounts a new descriptor of /dev/fuse at a target, whose root has a mode with its type.
func Attach(t testing.TB, target string, mode uint32) *os.File {
	t.Helper()
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,default_permissions,allow_other", device.Fd(), mode)
	if err := unix.Mount("test", target, "fuse.artifact", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		t.Fatalf("mount, which needs root: %v", err)
	}
	return device
}

// toPoll names a file in the environment of a process that opens it.
const toPoll = "ARTIFACT_TEST_POLL"

// Main is called first in TestMain. It does not return in the process that OpenOnce starts.
func Main() {
	name := os.Getenv(toPoll)
	if name == "" {
		return
	}
	if _, err := os.Open(name); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// OpenOnce opens a file in another process. Go's runtime polls a file that it opens, with a lock held that the server
// needs if it is in the same process. The kernel asks a file system once whether it supports that.
func OpenOnce(t testing.TB, name string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), toPoll+"="+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
