// Package confine makes a worker give up every system call that its role does not need, so that an
// attacker who breaks out of WebAssembly has few left. The launch has taken everything that a process
// can be born without (package sandbox). This comes later, because a program that has yet to load,
// link and start needs more than one that runs a guest.
//
// Package policy lists the calls of each role. The filters are made from it at build time (go
// generate), so a start pays only for installing them.
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

// filter is a program for seccomp(2). The instructions of that number compare with the process's id.
type filter struct {
	program []unix.SockFilter
	self    []int
}

// Guest confines a process that runs a guest, once that is loaded and linked: it maps no more
// machine code.
func Guest() error { return install(guest) }

// Emissary confines a process that takes the part of Argo's emissary, and the workers it starts.
func Emissary() error { return install(emissary) }

// Signaller confines a process that sends signals.
func Signaller() error { return install(signaller) }

// Preparer confines a process that compiles what it reads from a descriptor, before it reads.
func Preparer() error { return install(preparer) }

// install puts a filter on every thread of the process, for good, and keeps the process from gaining
// privileges, without which the kernel takes no filter (seccomp(2)).
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
