package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The programs exist after make build, which builds the binaries for all tests.
func TestPlace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lib")
	f, digest, err := client.place(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Name() != filepath.Join(dir, "wasm-client-"+digest) {
		t.Errorf("placed as %s, with digest %s", f.Name(), digest)
	}
	before, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := client.place(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if after, err := again.Stat(); err != nil || !os.SameFile(before, after) {
		t.Errorf("placed twice: %v", err)
	}
}

// The program of another version is removed, the files of other programs stay, and a changed program is
// placed again.
func TestPlaceReplaces(t *testing.T) {
	dir := t.TempDir()
	f, digest, err := client.place(dir)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	current := "wasm-client-" + digest
	if err := os.Chmod(filepath.Join(dir, current), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"wasm-client-old", "wasm-images-old", "wasm-worker-old", "cache"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o555); err != nil {
			t.Fatal(err)
		}
	}
	if f, _, err = client.place(dir); err != nil {
		t.Fatal(err)
	}
	f.Close()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), "cache "+current+" wasm-worker-old"; got != want {
		t.Errorf("the folder has %q, want %q", got, want)
	}
}

func TestRunFromMemory(t *testing.T) {
	f, err := client.inMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	command := exec.Command("/proc/self/fd/3", "find", "-h")
	command.ExtraFiles = []*os.File{f}
	output, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "-container") {
		t.Errorf("%v: %s", err, output)
	}
}

// Daemons that are started at the same time on a new node place a program once: the file that each has opened keeps
// its name.
func TestPlaceAtOnce(t *testing.T) {
	for range 20 {
		dir := t.TempDir()
		files := make(chan *os.File)
		for range 8 {
			go func() {
				f, _, err := client.place(dir)
				if err != nil {
					t.Error(err)
				}
				files <- f
			}()
		}
		var all []*os.File
		for range 8 {
			all = append(all, <-files)
		}
		for _, f := range all {
			var st syscall.Stat_t
			if err := syscall.Fstat(int(f.Fd()), &st); err != nil || st.Nlink == 0 {
				t.Errorf("%s: %d names, %v", f.Name(), st.Nlink, err)
			}
			f.Close()
		}
		if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
			t.Errorf("left: %q, %v", left, err)
		}
	}
}

// Nobody may read the executor, also where an earlier version has placed a readable one.
func TestPlacedExecutorIsUnreadable(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		f, _, err := executor.place(dir)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(f.Name())
		if err != nil || info.Mode() != 0o111 {
			t.Errorf("the mode is %v, %v", info.Mode(), err)
		}
		f.Close()
		if err := os.Chmod(f.Name(), 0o555); err != nil {
			t.Fatal(err)
		}
	}
}
