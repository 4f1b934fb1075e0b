// Package seccomp turns the seccomp profile of an OCI runtime spec into a
// kernel filter and installs it on the calling thread.
//
// It speaks to the kernel directly, without libseccomp, so that the launch
// needs no cgo. A profile means what it means under runc with libseccomp,
// with these deliberate differences, all of them stricter:
//
//   - Only the native architecture may make system calls. A call in any other
//     ABI (i386 on amd64, arm on arm64) kills the process even when the profile
//     lists that architecture: the worker is a static native binary and has no
//     honest use for it. x32 calls answer ENOSYS, as from a kernel without x32.
//   - Conditional rules of one syscall that ask for different actions and match
//     the same call: the strictest action wins, by the kernel's own order. What
//     libseccomp does there depends on the order of its internal tree.
//   - What the profile asks for and this package cannot give (a user notifier,
//     an unknown flag) is an error that names the field.
//
// Package seccomp never changes the profile, never sets no_new_privs, and never
// touches a thread other than the caller's.
package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Filter is a compiled profile. It is immutable and may be installed any number
// of times, on any thread.
type Filter struct {
	program []unix.SockFilter
	flags   uint32
}

// Compile translates profile for the architecture this binary was built for.
//
// It returns nil and no error when there is nothing to filter: profile is nil,
// or has neither a default action nor rules, which runc takes for "no seccomp".
// Syscall names that this architecture does not have are ignored, as runc
// ignores them. An invalid field, or one that cannot be honoured, is an error
// that names the field (runtime-spec v1.3.0, config-linux.md#seccomp).
func Compile(profile *specs.LinuxSeccomp) (*Filter, error) {
	return compile(profile, native)
}

// CompileFor is Compile for an architecture by Go's name of it. A program that calls
// it holds the tables of all.
func CompileFor(goarch string, profile *specs.LinuxSeccomp) (*Filter, error) {
	return compile(profile, archOf(goarch))
}

func compile(profile *specs.LinuxSeccomp, a *arch) (*Filter, error) {
	if profile == nil || (profile.DefaultAction == "" && len(profile.Syscalls) == 0) {
		return nil, nil
	}
	if a == nil {
		return nil, errors.New("linux.seccomp: no system call table for this architecture")
	}
	policy, err := parse(profile, a)
	if err != nil {
		return nil, err
	}
	program, err := assemble(policy)
	if err != nil {
		return nil, err
	}
	return &Filter{program: program, flags: policy.flags}, nil
}

// Program returns the filter's instructions, for a program that installs them without
// this package.
func (f *Filter) Program() []unix.SockFilter { return slices.Clone(f.program) }

// Install puts the filter on the calling OS thread, for good: threads and
// processes that it creates from now on inherit it, threads that exist already
// are not affected. The caller has locked its goroutine to the thread, and the
// thread has no_new_privs set or CAP_SYS_ADMIN in its user namespace.
//
// Whatever the thread does afterwards, forking and executing the container's
// process included, is subject to the filter. Installing a nil Filter does
// nothing (seccomp(2), SECCOMP_SET_MODE_FILTER).
func (f *Filter) Install() error {
	if f == nil {
		return nil
	}
	prog := unix.SockFprog{Len: uint16(len(f.program)), Filter: &f.program[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP,
		unix.SECCOMP_SET_MODE_FILTER, uintptr(f.flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(f)
	if errno == 0 {
		return nil
	}
	if errors.Is(errno, unix.EACCES) {
		return fmt.Errorf("install seccomp filter: the thread has neither no_new_privs nor CAP_SYS_ADMIN: %w", errno)
	}
	return fmt.Errorf("install seccomp filter (%d instructions, flags %#x): %w", len(f.program), f.flags, errno)
}
