// Package tools holds the modules that pin the tools, and the script that builds them.
package tools

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// builder runs build.sh with the go and the pkg-config of the test.
type builder struct {
	t                *testing.T
	cache, bin, said string
}

func newBuilder(t *testing.T) builder {
	t.Helper()
	dir := t.TempDir()
	b := builder{t, filepath.Join(dir, "cache"), filepath.Join(dir, "bin"), filepath.Join(dir, "said")}
	if err := os.Mkdir(b.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	// "go build … -o DIR/ PACKAGE" notes how it was called and makes DIR.
	b.program("go", `echo "$*" >> `+b.said+`; while [ "$1" != -o ]; do shift; done; mkdir -p "$2"`)
	return b
}

// program puts a shell script on the test's PATH.
func (b builder) program(name, script string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// runc makes build.sh provide runc, and returns its folder and the number of builds so far.
func (b builder) runc() (folder string, builds int) {
	b.t.Helper()
	build := exec.Command("./build.sh", "runc")
	build.Env = []string{"PATH=" + b.bin + ":/usr/bin:/bin", "TOOLS_CACHE=" + b.cache, "HOME=" + b.cache}
	output, err := build.Output()
	if err != nil {
		b.t.Fatalf("build.sh: %v", err)
	}
	said, err := os.ReadFile(b.said)
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(string(output)), strings.Count(string(said), "\n")
}

// A runc that was built without libseccomp's headers is not used after they are installed: it
// would refuse every pod with a profile. "make demo" builds runc before "make test" installs
// the headers.
func TestRuncIsBuiltAnewWithLibseccomp(t *testing.T) {
	b := newBuilder(t)
	b.program("pkg-config", "exit 1")
	without, _ := b.runc()
	if again, builds := b.runc(); again != without || builds != 1 {
		t.Errorf("built %d times, to %s and %s", builds, without, again)
	}
	b.program("pkg-config", `[ "$*" = "--exists libseccomp" ]`)
	with, builds := b.runc()
	if with == without || builds != 2 {
		t.Errorf("with libseccomp it is %s, as without; built %d times", with, builds)
	}
	said, err := os.ReadFile(b.said)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(string(said), "\n"); strings.Contains(lines[0], "-tags seccomp") || !strings.Contains(lines[1], "-tags seccomp") {
		t.Errorf("go was called\n%s", said)
	}
}

// The machine's own runc is taken only if it applies seccomp profiles.
func TestRuncOfTheMachine(t *testing.T) {
	b := newBuilder(t)
	b.program("pkg-config", "exit 0")
	b.program("runc", "echo 'runc version 1.4.3'")
	if folder, _ := b.runc(); folder == b.bin {
		t.Error("one without libseccomp was taken")
	}
	b.program("runc", "echo 'libseccomp: 2.5.4'")
	if folder, _ := b.runc(); folder != b.bin {
		t.Errorf("one with libseccomp was not taken, but %s", folder)
	}
}
