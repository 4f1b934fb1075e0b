package seccomp

import (
	"cmp"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

//go:generate go run mksyscalls.go

// arch holds what the compiler needs about an architecture.
type arch struct {
	audit uint32 // AUDIT_ARCH_*, the kernel's value of seccomp_data.arch
	calls []call // every syscall, ordered by name
	x32   bool   // x32 calls share the audit architecture; x32Bit distinguishes them
}

type call struct {
	name string
	nr   uint32
}

// x32Bit marks a syscall number of the x32 ABI (__X32_SYSCALL_BIT in
// arch/x86/include/uapi/asm/unistd.h).
const x32Bit = 0x40000000

// native is the architecture of this binary. The argument is a constant and the
// function is inlined, so that the linker keeps only the table that is used.
var native = archOf(runtime.GOARCH)

// archOf returns an architecture by its GOARCH name, nil if there is no table for it.
func archOf(goarch string) *arch {
	switch goarch {
	case "amd64":
		return &arch{audit: unix.AUDIT_ARCH_X86_64, calls: callsX86_64[:], x32: true}
	case "arm64":
		return &arch{audit: unix.AUDIT_ARCH_AARCH64, calls: callsAArch64[:]}
	default:
		return nil
	}
}

// lookup returns the number of the syscall name and whether it exists.
func (a *arch) lookup(name string) (uint32, bool) {
	i, found := slices.BinarySearchFunc(a.calls, name, func(c call, name string) int {
		return cmp.Compare(c.name, name)
	})
	if !found {
		return 0, false
	}
	return a.calls[i].nr, true
}
