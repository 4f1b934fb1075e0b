// Package confine makes a worker give up every system call that its role does not need, so that an attacker
// who breaks out of WebAssembly has few left. Package sandbox has already taken away everything that a
// process can start without. This package acts later, because a program needs more calls to load, link and
// start a guest than to run it.
//
// Package policy lists the calls of each role. go generate makes the filters from it at build time, so a
// start only has to install them.
// See RATIONALE.md, "Why does the worker take system calls?"
package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:generate go run mkfilters.go

// filter is a program for seccomp(2). self are the numbers of the instructions that compare with the
// process's id.
type filter struct {
	program []unix.SockFilter
	self    []int
}

// Guest confines a process that runs a guest, after the guest is loaded and linked: it maps no more machine
// code.
func Guest() error { return install(guest) }

// Emissary confines a process that replaces Argo's emissary, and the workers that it starts.
func Emissary() error { return install(emissary) }

// Signaller confines a process that sends signals.
func Signaller() error { return install(signaller) }

// Preparer confines a process that compiles a module from a descriptor, before it reads the module.
func Preparer() error { return install(preparer) }

// install puts a filter on every thread of the process, irrevocably. It first sets no_new_privs, without
// which the kernel accepts no filter (seccomp(2)).
func install(f filter) error {
	program := slices.Clone(f.program)
	for _, i := range f.self {
		program[i].K = uint32(os.Getpid())
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("confine the worker: set no_new_privs: %w", err)
	}
	attributes := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	thread, _, errno := unix.RawSyscall(unix.SYS_SECCOMP,
		unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&attributes)))
	runtime.KeepAlive(program)
	switch {
	case errors.Is(errno, unix.EPERM):
		return fmt.Errorf("confine the worker: the container's seccomp profile must allow seccomp(2) and prctl(2), by which the worker confines itself: %w", errno)
	case errno != 0:
		return fmt.Errorf("confine the worker: install a filter of %d instructions: %w", len(program), errno)
	case thread != 0:
		return fmt.Errorf("confine the worker: thread %d has another filter", thread)
	}
	return nil
}
