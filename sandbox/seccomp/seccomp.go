// Package seccomp turns the seccomp profile of an OCI runtime spec into a
// kernel filter and installs it on the calling thread.
//
// It makes the system calls itself, without libseccomp, so that the launch needs no
// cgo. A profile has the same effect as under runc with libseccomp, with these
// deliberate differences, all of them stricter:
//
//   - Only the native architecture may make system calls. A call in any other
//     ABI (i386 on amd64, arm on arm64) kills the process even when the profile
//     lists that architecture: the worker is a static native binary and has no
//     legitimate use for it. x32 calls return ENOSYS, as on a kernel without x32.
//   - If conditional rules of one syscall match the same call and have different
//     actions, the strictest action wins, by the kernel's own order. In libseccomp
//     the result depends on the order of its internal tree.
//   - A part of the profile that this package does not support (a user notifier, an
//     unknown flag) is an error that names the field.
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
// It returns nil and no error when there is nothing to filter: profile is nil, or has
// neither a default action nor rules, which means "no seccomp" in runc. Syscall names
// that this architecture does not have are ignored, as in runc. An invalid or
// unsupported field is an error that names the field (runtime-spec v1.3.0,
// config-linux.md#seccomp).
func Compile(profile *specs.LinuxSeccomp) (*Filter, error) {
	return compile(profile, native)
}

// CompileFor is Compile for an architecture by its GOARCH name. A program that calls
// it contains the tables of all architectures.
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

// Install installs the filter on the calling OS thread, permanently: threads and
// processes that it creates from now on inherit it, threads that exist already are not
// affected. The caller must have locked its goroutine to the thread, and the thread
// must have no_new_privs or CAP_SYS_ADMIN in its user namespace.
//
// The filter applies to everything that the thread does afterwards, including the fork
// and the exec of the container's process. Install of a nil Filter is a no-op
// (seccomp(2), SECCOMP_SET_MODE_FILTER).
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
