package main

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/wasmshim/containerd-shim-wasm/module"
)

// embedded holds the programs in this binary, and the sha256 of each, which make build puts there. The kernel
// never loads pages of them that are not read.
//
//go:embed all:programs
var embedded embed.FS

// program is the file name of an embedded program.
type program string

const (
	worker program = "wasm-worker" // holds wasmtime
	client program = "wasm-client" // speaks to containerd and registries
	// executor does the work of Argo's argoexec in the init and wait containers of a workflow's pod.
	executor program = "wasm-argoexec"
)

// former are the names under which earlier versions placed a program.
var former = map[program][]program{client: {"wasm-images"}}

// mode returns the mode of the placed program. Nobody may read the executor, so that no neighbour gets at the token and
// the secrets of its container between its execve and the call by which it hides itself (sandbox.Launch).
func (p program) mode() fs.FileMode {
	if p == executor {
		return 0o111
	}
	return 0o555
}

// programs are all embedded programs, for package module to place.
var programs = module.Programs{Worker: worker.place, Client: client.place}

// open returns the program's content, its digest and its size in bytes.
func (p program) open() (content fs.File, digest string, size int64, err error) {
	file := "programs/" + string(p)
	sum, err := embedded.ReadFile(file + ".sha256")
	if err != nil {
		return nil, "", 0, p.missing()
	}
	if content, err = embedded.Open(file); err != nil {
		return nil, "", 0, p.missing()
	}
	info, err := content.Stat()
	if err != nil {
		return nil, "", 0, p.missing()
	}
	return content, strings.TrimSpace(string(sum))[:32], info.Size(), nil
}

// missing returns the error of a binary that was built without make build.
func (p program) missing() error {
	return fmt.Errorf("this binary holds no %s: build it with make build", p)
}

// place puts the program into dir under its digest, unless it is there, and returns it opened. Only root can
// write to dir: a process that can write there can run code in every Wasm container.
func (p program) place(dir string) (*os.File, string, error) {
	content, digest, size, err := p.open()
	if err != nil {
		return nil, "", err
	}
	defer content.Close()
	path := filepath.Join(dir, string(p)+"-"+digest)
	if f, err := p.openIntact(path, size); err == nil {
		return f, digest, nil
	}
	if err := p.write(dir, path, content, size); err != nil {
		return nil, "", err
	}
	f, err := p.openIntact(path, size)
	return f, digest, err
}

func (p program) openIntact(path string, size int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (info.Size() != size || info.Mode() != p.mode() || info.Sys().(*syscall.Stat_t).Uid != 0) {
		err = fmt.Errorf("%s is not the file that was placed", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (p program) write(dir, path string, content io.Reader, size int64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+string(p)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	if err := f.Chmod(p.mode()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// A binary that is open for writing cannot be executed.
	if err := f.Close(); err != nil {
		return err
	}
	if err := p.settle(f.Name(), path, size); err != nil {
		return err
	}
	if outdated() {
		return nil
	}
	return p.removeOlder(dir, filepath.Base(path))
}

// settle gives a file its path, unless a daemon that was started at the same time has put the same program there:
// that one has opened it, and a file that has lost its name cannot be mounted (move_mount(2)).
func (p program) settle(file, path string, size int64) error {
	err := os.Link(file, path)
	if err == nil {
		return nil
	}
	if f, intactErr := p.openIntact(path, size); intactErr == nil {
		return f.Close()
	}
	return os.Rename(file, path)
}

// outdated reports whether another version has replaced this binary since it was started: its programs are
// then not the ones to keep.
func outdated() bool {
	path, err := os.Readlink("/proc/self/exe") // proc_pid_exe(5)
	return err == nil && strings.HasSuffix(path, " (deleted)")
}

// removeOlder removes the programs that earlier versions placed; processes that run from them keep them until
// they end.
func (p program) removeOlder(dir, current string) error {
	var old []string
	for _, name := range append(former[p], p) {
		found, err := filepath.Glob(filepath.Join(dir, string(name)+"-*"))
		if err != nil {
			return err
		}
		old = append(old, found...)
	}
	for _, path := range old {
		if filepath.Base(path) == current {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
