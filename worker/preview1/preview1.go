// Package preview1 is WASI preview 1 for core modules: its functions are C, and each is one or two system
// calls. A guest's files are the kernel's, as a native container has them.
// See RATIONALE.md, "Why is preview 1 our own, and in C?"
package preview1

/*
#cgo CFLAGS: -std=gnu11 -D_GNU_SOURCE -Wall -Wextra
#cgo LDFLAGS: -Wl,--unresolved-symbols=ignore-all
#include <stdlib.h>
#include "link.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"
)

// Module is the name under which a guest imports the functions.
const Module = "wasi_snapshot_preview1"

// World is what a guest has.
type World struct {
	Args    []string
	Env     []string // NAME=value
	Roots   []Root
	Streams [3]*os.File
}

// Root is a directory that a guest finds open. What is in it can be reached, and nothing else: an absolute
// link there begins at it.
type Root struct {
	Path string
	Name string // the guest's name for it
}

// Guest is the state of one guest: what its descriptors stand for, and how it has ended.
type Guest struct {
	world World // keeps the streams open
	state *C.struct_guest
}

// New returns a guest of which no instruction has run. The caller closes it.
func New(world World) (*Guest, error) {
	args, env := joined(world.Args), joined(world.Env)
	var streams [3]C.int
	for i, file := range world.Streams {
		streams[i] = C.int(file.Fd())
	}
	state := C.guest_new(&streams[0],
		C.uint32_t(len(world.Args)), bytes(args), C.uint32_t(len(args)),
		C.uint32_t(len(world.Env)), bytes(env), C.uint32_t(len(env)))
	if state == nil {
		return nil, errors.New("make the guest's state: out of memory")
	}
	g := &Guest{world: world, state: state}
	for _, root := range world.Roots {
		if err := g.preopen(root); err != nil {
			g.Close()
			return nil, err
		}
	}
	return g, nil
}

// joined returns strings in one piece, each with a NUL. One with a NUL inside ends there, as in execve(2).
func joined(given []string) string {
	var all strings.Builder
	for _, s := range given {
		s, _, _ = strings.Cut(s, "\x00")
		all.WriteString(s)
		all.WriteByte(0)
	}
	return all.String()
}

// bytes lends C the bytes of a string for a call.
func bytes(s string) *C.char { return (*C.char)(unsafe.Pointer(unsafe.StringData(s))) }

func (g *Guest) preopen(root Root) error {
	path, name := C.CString(root.Path), C.CString(root.Name)
	defer C.free(unsafe.Pointer(path))
	defer C.free(unsafe.Pointer(name))
	switch errno := syscall.Errno(C.guest_preopen(g.state, path, name)); errno {
	case 0:
		return nil
	case syscall.EPERM, syscall.ENOSYS:
		return fmt.Errorf("open the guest's root %s: the container's seccomp profile must allow openat2(2) and fstatfs(2), which keep a guest's "+
			"paths in its root (Linux has the former since 5.6): %w", root.Name, errno)
	default:
		return fmt.Errorf("open the guest's root %s: %w", root.Name, errno)
	}
}

// Define defines all functions in a linker. The linker must not outlive the guest, and instantiate one module
// only.
func (g *Guest) Define(linker *wasmtime.Linker) error {
	// The linker's first field: wasmtime-go cannot define a function of C.
	pointer := *(*unsafe.Pointer)(unsafe.Pointer(linker))
	name := C.guest_define(g.state, pointer)
	runtime.KeepAlive(linker)
	if name != nil {
		return fmt.Errorf("define %s.%s", Module, C.GoString(name))
	}
	return nil
}

// Exited returns the status with which the guest has called proc_exit. It is false if it has not.
func (g *Guest) Exited() (status int, exited bool) {
	var number C.int32_t
	exited = bool(C.guest_exited(g.state, &number))
	return int(number), exited
}

// Close closes the guest's files, without its standard streams.
func (g *Guest) Close() {
	C.guest_free(g.state)
	g.state = nil
}

// Provides reports whether a guest may import a function of that name.
func Provides(module, name string) bool {
	if module != Module || strings.Contains(name, "\x00") {
		return false
	}
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return bool(C.provides(text))
}
