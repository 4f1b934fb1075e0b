// Package testmount lets the tests of a server open files of its mount. No shipped binary imports it.
package testmount

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

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
