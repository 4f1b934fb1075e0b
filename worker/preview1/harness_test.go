package preview1_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/worker/engine"
	"github.com/wasmshim/containerd-shim-wasm/worker/preview1"
)

// function is a function of WASI and the types of its parameters, as functions.h has them.
type function struct{ name, params string }

var functions = sync.OnceValues(func() ([]function, error) {
	text, err := os.ReadFile("functions.h")
	if err != nil {
		return nil, err
	}
	var all []function
	for _, match := range regexp.MustCompile(`F\((\w+), "(\w*)"\)`).FindAllStringSubmatch(string(text), -1) {
		all = append(all, function{match[1], match[2]})
	}
	if len(all) != 46 {
		return nil, fmt.Errorf("functions.h has %d functions", len(all))
	}
	return all, nil
})

// pages is the size of a guest's memory.
const pages = 4

// passOn returns a guest that exports every function that it imports.
func passOn() (string, error) {
	all, err := functions()
	if err != nil {
		return "", err
	}
	var imports, exports strings.Builder
	for _, f := range all {
		var params, arguments strings.Builder
		for i, p := range f.params {
			fmt.Fprintf(&params, " %s", map[rune]string{'i': "i32", 'l': "i64"}[p])
			fmt.Fprintf(&arguments, " (local.get %d)", i)
		}
		signature := fmt.Sprintf("(param%s)", params.String())
		if f.name != "proc_exit" {
			signature += " (result i32)"
		}
		fmt.Fprintf(&imports, "(import %q %q (func $%s %s))\n", preview1.Module, f.name, f.name, signature)
		fmt.Fprintf(&exports, "(func (export %q) %s (call $%s%s))\n", f.name, signature, f.name, arguments.String())
	}
	return fmt.Sprintf("(module %s (memory (export \"memory\") %d) %s)", imports.String(), pages, exports.String()), nil
}

// machine is an engine and the module of passOn, compiled for it.
type machine struct {
	engine *wasmtime.Engine
	module *wasmtime.Module
}

var shared = sync.OnceValues(func() (machine, error) {
	text, err := passOn()
	if err != nil {
		return machine{}, err
	}
	binary, err := wasmtime.Wat2Wasm(text)
	if err != nil {
		return machine{}, err
	}
	e := engine.New()
	module, err := wasmtime.NewModule(e, binary)
	return machine{e, module}, err
})

// caller calls WASI as a guest does: through compiled code, with its arguments in the guest's memory; or makes the
// native calls in their place.
type caller struct {
	posix    *posix
	t        testing.TB
	store    *wasmtime.Store
	instance *wasmtime.Instance
	memory   *wasmtime.Memory
}

// ours returns a guest of this package whose root is at path.
func ours(t testing.TB, path string) *caller {
	t.Helper()
	return oursOn(t, sharedMachine(t), path)
}

func oursOn(t testing.TB, m machine, path string) *caller {
	t.Helper()
	return m.ours(t, preview1.World{Roots: []preview1.Root{{Path: path, Name: "/"}}})
}

func oursIn(t testing.TB, world preview1.World) *caller {
	t.Helper()
	return sharedMachine(t).ours(t, world)
}

func sharedMachine(t testing.TB) machine {
	t.Helper()
	m, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// ours returns a guest of this package in a world, with the process's standard streams unless the world has others.
func (m machine) ours(t testing.TB, world preview1.World) *caller {
	t.Helper()
	for i, file := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if world.Streams[i] == nil {
			world.Streams[i] = file
		}
	}
	guest, err := preview1.New(world)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guest.Close)
	return m.instantiate(t, func(linker *wasmtime.Linker, _ *wasmtime.Store) error { return guest.Define(linker) })
}

// theirs returns a guest of the engine's own WASI whose root is at path.
func theirs(t testing.TB, path string) *caller {
	t.Helper()
	return theirsOn(t, sharedMachine(t), path)
}

func theirsOn(t testing.TB, m machine, path string) *caller {
	t.Helper()
	config := wasmtime.NewWasiConfig()
	const both = 3
	if err := config.PreopenDir(path, "/", both, both); err != nil {
		t.Fatal(err)
	}
	return m.instantiate(t, func(linker *wasmtime.Linker, store *wasmtime.Store) error {
		store.SetWasi(config)
		return linker.DefineWasi()
	})
}

func (m machine) instantiate(t testing.TB, define func(*wasmtime.Linker, *wasmtime.Store) error) *caller {
	t.Helper()
	linker, store := wasmtime.NewLinker(m.engine), wasmtime.NewStore(m.engine)
	t.Cleanup(linker.Close)
	t.Cleanup(store.Close)
	if err := define(linker, store); err != nil {
		t.Fatal(err)
	}
	instance, err := linker.Instantiate(store, m.module)
	if err != nil {
		t.Fatal(err)
	}
	return &caller{t: t, store: store, instance: instance, memory: instance.GetExport(store, "memory").Memory()}
}

// errno is an error number of WASI. trapped is one of our own.
type errno int

const (
	success      errno = 0
	eacces       errno = 2
	eagain       errno = 6
	ebadf        errno = 8
	eexist       errno = 20
	efault       errno = 21
	einval       errno = 28
	eisdir       errno = 31
	eloop        errno = 32
	enoent       errno = 44
	enospc       errno = 51
	enotdir      errno = 54
	enotempty    errno = 55
	enotsock     errno = 57
	enotsup      errno = 58
	eperm        errno = 63
	epipe        errno = 64
	erofs        errno = 69
	espipe       errno = 70
	exdev        errno = 75
	enametoolong errno = 37
	trapped      errno = -1
)

// call calls a function. Integers become what its parameters are.
func (c *caller) call(name string, arguments ...uint64) errno {
	c.t.Helper()
	if c.posix != nil {
		return c.posix.call(name, arguments)
	}
	function := c.instance.GetFunc(c.store, name)
	params := function.Type(c.store).Params()
	if len(params) != len(arguments) {
		c.t.Fatalf("%s takes %d arguments", name, len(params))
	}
	values := make([]any, len(arguments))
	for i, argument := range arguments {
		values[i] = int64(argument)
		if params[i].Kind() == wasmtime.KindI32 {
			values[i] = int32(argument)
		}
	}
	result, err := function.Call(c.store, values...)
	if err != nil {
		return trapped
	}
	return errno(result.(int32))
}

// want fails the test unless a call ends with one of these errors.
func (c *caller) want(got errno, want ...errno) {
	c.t.Helper()
	for _, w := range want {
		if got == w {
			return
		}
	}
	c.t.Fatalf("it ends with error %d, want %d", got, want)
}

// Places in the guest's memory.
const (
	atResult = 64    // what a call stores
	atVector = 512   // a list of buffers
	atPath   = 1024  // a path
	atOther  = 6144  // another path
	atData   = 16384 // the content of a buffer
	dataSize = pages<<16 - atData
)

func (c *caller) bytes() []byte {
	if c.posix != nil {
		return c.posix.memory
	}
	return c.memory.UnsafeData(c.store)
}

func (c *caller) number(at, size int) uint64 {
	var whole [8]byte
	copy(whole[:], c.bytes()[at:at+size])
	return binary.LittleEndian.Uint64(whole[:])
}

// text puts a text into the guest's memory and returns its place and length.
func (c *caller) text(at int, text string) (place, length uint64) {
	copy(c.bytes()[at:], text)
	return uint64(at), uint64(len(text))
}

const (
	mayRead  = 1 << 1
	mayWrite = 1 << 6
	root     = 3
	follow   = 1

	create    = 1
	onlyDir   = 2
	exclusive = 4
	truncate  = 8

	appends  = 1
	nonblock = 4
)

func (c *caller) open(dir uint64, lookup uint64, path string, how, rights, flags uint64) (uint64, errno) {
	c.t.Helper()
	at, length := c.text(atPath, path)
	err := c.call("path_open", dir, lookup, at, length, how, rights, rights, flags, atResult)
	return c.number(atResult, 4), err
}

// opened opens a file below the root, and fails the test if that fails.
func (c *caller) opened(path string, how, rights, flags uint64) uint64 {
	c.t.Helper()
	fd, err := c.open(root, follow, path, how, rights, flags)
	if err != success {
		c.t.Fatalf("open %s: error %d", path, err)
	}
	return fd
}

// path calls a function whose arguments are a directory and a path.
func (c *caller) path(name string, dir uint64, path string) errno {
	c.t.Helper()
	at, length := c.text(atPath, path)
	return c.call(name, dir, at, length)
}

// vector puts a list of one buffer into the guest's memory.
func (c *caller) vector(at, length uint64) {
	binary.LittleEndian.PutUint32(c.bytes()[atVector:], uint32(at))
	binary.LittleEndian.PutUint32(c.bytes()[atVector+4:], uint32(length))
}

func (c *caller) read(fd uint64, size int) (string, errno) {
	c.t.Helper()
	c.vector(atData, uint64(size))
	err := c.call("fd_read", fd, atVector, 1, atResult)
	return string(c.bytes()[atData : atData+int(c.number(atResult, 4))]), err
}

func (c *caller) write(fd uint64, text string) errno {
	c.t.Helper()
	c.vector(c.text(atData, text))
	return c.call("fd_write", fd, atVector, 1, atResult)
}

func (c *caller) symlink(target, path string) errno {
	c.t.Helper()
	at, length := c.text(atPath, target)
	atNew, lengthNew := c.text(atOther, path)
	return c.call("path_symlink", at, length, root, atNew, lengthNew)
}

// two calls a function whose arguments are two paths below directories.
func (c *caller) two(name string, dir uint64, path string, otherDir uint64, other string, first ...uint64) errno {
	c.t.Helper()
	at, length := c.text(atPath, path)
	atNew, lengthNew := c.text(atOther, other)
	arguments := append([]uint64{dir}, first...)
	return c.call(name, append(arguments, at, length, otherDir, atNew, lengthNew)...)
}

// status is what a guest learns of a file.
type status struct {
	dev, ino, kind, links, size uint64
}

func (c *caller) status(lookup uint64, path string) (status, errno) {
	c.t.Helper()
	at, length := c.text(atPath, path)
	err := c.call("path_filestat_get", root, lookup, at, length, atResult)
	return c.statusAt(), err
}

func (c *caller) statusAt() status {
	return status{c.number(atResult, 8), c.number(atResult+8, 8), c.number(atResult+16, 1), c.number(atResult+24, 8), c.number(atResult+32, 8)}
}

// write writes a file of the host's.
func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func symlink(t testing.TB, target, path string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(target, path)); err != nil {
		t.Fatal(err)
	}
}
