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
)

// embedded holds the worker's binary and its sha256, which make build puts
// there. Pages of it that nobody reads are never loaded.
//
//go:embed all:worker
var embedded embed.FS

// errNoWorker is what a binary built without make build says.
var errNoWorker = errors.New("this binary holds no worker: build it with make build")

// placeWorker puts the worker's binary into dir under its digest, unless it is
// there, and returns it opened. dir belongs to root alone: whoever can write
// there can run code in every Wasm container.
func placeWorker(dir string) (*os.File, string, error) {
	sum, err := embedded.ReadFile("worker/wasm-worker.sha256")
	if err != nil {
		return nil, "", errNoWorker
	}
	digest := strings.TrimSpace(string(sum))[:32]
	source, err := embedded.Open("worker/wasm-worker")
	if err != nil {
		return nil, "", errNoWorker
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return nil, "", errNoWorker
	}
	path := filepath.Join(dir, "wasm-worker-"+digest)
	if f, err := openIntact(path, info.Size()); err == nil {
		return f, digest, nil
	}
	if err := writeWorker(dir, path, source); err != nil {
		return nil, "", err
	}
	f, err := openIntact(path, info.Size())
	return f, digest, err
}

func openIntact(path string, size int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (info.Size() != size || info.Mode() != 0o555 || info.Sys().(*syscall.Stat_t).Uid != 0) {
		err = fmt.Errorf("%s is not the file that was placed", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func writeWorker(dir, path string, source io.Reader) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".wasm-worker-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := io.Copy(f, source); err != nil {
		return err
	}
	if err := f.Chmod(0o555); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// A binary that is open for writing cannot be executed.
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	if outdated() {
		return nil
	}
	return removeOlder(dir, filepath.Base(path))
}

// outdated reports whether another version has taken this binary's place since it
// was started: its worker is then not the one to keep.
func outdated() bool {
	path, err := os.Readlink("/proc/self/exe") // proc_pid_exe(5)
	return err == nil && strings.HasSuffix(path, " (deleted)")
}

// removeOlder removes what earlier versions placed; workers that run from it
// keep it until they end.
func removeOlder(dir, current string) error {
	old, err := filepath.Glob(filepath.Join(dir, "wasm-worker-*"))
	if err != nil {
		return err
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
