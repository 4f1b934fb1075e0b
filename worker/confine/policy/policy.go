// Package policy lists the system calls that each role of the worker needs. Package confine contains the
// filters made from it; neither the daemon nor the worker imports this package.
//
// The lists were measured with the integration tests (modules, components, volumes, terminals, traps, Argo's
// emissary). SECCOMP_RET_LOG replaced the denying actions, so the kernel logged missing calls. The calls that
// Go's runtime, glibc, tokio and cap-std fall back to were added. The lists name the calls of every
// architecture; calls that an architecture lacks are ignored there.
package policy

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Self is a placeholder for the process's own id, which package confine fills in.
const Self = 0x5e1f5e1f

// Roles returns the profile of each role.
func Roles() map[string]*specs.LinuxSeccomp {
	return map[string]*specs.LinuxSeccomp{
		"guest":     profile(process, threads, files, sealed),
		"emissary":  profile(process, threads, files, emissary),
		"signaller": profile(process, threads, sealed, signaller),
		"preparer":  profile(process, threads, preparer),
	}
}

// process are the calls that the Go runtime, glibc and wasmtime's Rust code need to run at all.
var process = []specs.LinuxSyscall{
	allow("read", "readv", "write", "writev", "close", "fstat", "lseek"),
	allow("brk", "munmap", "mremap", "madvise", "mincore", "membarrier"),
	allow("futex", "sched_yield", "sched_getaffinity", "getcpu", "restart_syscall",
		"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time"),
	allow("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
	allow("epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "eventfd2",
		"poll", "ppoll", "pselect6", "select"),
	allow("getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getrandom", "getrlimit", "getrusage", "uname", "sysinfo"),
	allow("exit", "exit_group"),
	// No locks, leases, seals and signals.
	allowOneOf("fcntl", 1, unix.F_DUPFD, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_DUPFD_CLOEXEC),
	allowOneOf("prctl", 0, unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA),
	// Whether a descriptor is a terminal, its size, the number of readable bytes, flags of the descriptor.
	allowOneOf("ioctl", 1, unix.TCGETS, unix.TCGETS2, unix.TIOCGWINSZ, fionread, fionbio, fioclex, fionclex),
	allowIf("prlimit64", equal(0, 0), equal(2, 0)), // only reads the process's own
	// Go preempts its threads, and an aborting program signals itself.
	allowIf("tgkill", equal(0, Self)),
	allowIf("kill", equal(0, Self)),
}

// From include/uapi/asm-generic/ioctls.h.
const (
	fionread = 0x541b
	fionbio  = 0x5421
	fionclex = 0x5450
	fioclex  = 0x5451
)

// threads lets a process start threads, but no processes and no namespaces.
var threads = []specs.LinuxSyscall{
	allowIf("clone", masked(0, unix.CLONE_THREAD|newNamespaces, unix.CLONE_THREAD)),
	allow("set_robust_list", "rseq", "set_tid_address"),
	fail(unix.ENOSYS, "clone3"), // a filter cannot read its flags; glibc falls back to clone
}

const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// files are WASI's operations on files. WASI has no modes, owners, attributes, locks or devices.
var files = []specs.LinuxSyscall{
	allow("openat", "openat2", "open", "newfstatat", "statx", "stat", "lstat", "fstatfs", "getdents64", "readlinkat", "readlink",
		"mkdirat", "mkdir", "unlinkat", "unlink", "rmdir", "renameat", "renameat2", "rename", "linkat", "symlinkat",
		"utimensat", "faccessat", "faccessat2", "access"),
	allow("pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "ftruncate", "fallocate", "fadvise64",
		"fsync", "fdatasync", "sync_file_range", "copy_file_range", "sendfile", "splice", "dup", "dup3"),
}

// sealed is for a process that has mapped its machine code: it can map no more.
var sealed = []specs.LinuxSyscall{
	allowIf("mmap", masked(2, unix.PROT_EXEC, 0)),
	allowIf("mprotect", masked(2, unix.PROT_EXEC, 0)),
}

// preparer makes memory executable, to check whether the engine accepts the machine code. All of its files
// are open already.
var preparer = []specs.LinuxSyscall{
	allowIf("mmap", masked(2, unix.PROT_EXEC, 0)),
	allowIf("mprotect", masked(2, unix.PROT_EXEC|unix.PROT_WRITE, unix.PROT_EXEC)),
	allowIf("mprotect", masked(2, unix.PROT_EXEC, 0)),
	allow("pread64"),
}

// emissary starts a second worker, which inherits this list and narrows it, and keeps Argo's contract.
var emissary = []specs.LinuxSyscall{
	allow("mmap", "mprotect"),
	allowIf("clone", masked(0, unix.CLONE_PARENT|newNamespaces, 0)), // no child becomes its sibling
	allow("vfork", "execve", "wait4", "waitid", "kill", "tgkill", "prlimit64", "pipe2", "chdir", "fchmod", "umask", "arch_prctl", "getppid",
		"seccomp", "prctl", "setsid", "close_range", "dup2"),
	allowIf("socketpair", equal(0, unix.AF_UNIX)),
}

// signaller sends one signal to a process of the container.
var signaller = []specs.LinuxSyscall{allow("kill")}

// deadly are the calls that no role makes and no guest can cause. A process that makes one has been taken
// over. The kernel kills it, which is visible in the exit code (159) and in the kernel's log. Every other
// unlisted call fails with EPERM, because a guest's legitimate call may lead to it, such as a component's
// call for a socket.
var deadly = []string{
	"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp",
	"pidfd_open", "pidfd_getfd", "pidfd_send_signal",
	"mount", "umount2", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
	"pivot_root", "chroot", "unshare", "setns", "mknod", "mknodat", "open_by_handle_at", "name_to_handle_at",
	"bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "fanotify_init",
	"keyctl", "add_key", "request_key", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid", "capset",
	"iopl", "ioperm", "swapon", "swapoff", "reboot", "acct", "quotactl", "quotactl_fd", "sethostname", "setdomainname",
}

// profile makes a profile of lists. Calls that they do not name are deadly or fail.
func profile(lists ...[]specs.LinuxSyscall) *specs.LinuxSeccomp {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno}
	named := map[string]bool{}
	for _, call := range slices.Concat(lists...) {
		p.Syscalls = append(p.Syscalls, call)
		for _, name := range call.Names {
			named[name] = true
		}
	}
	rest := slices.DeleteFunc(slices.Clone(deadly), func(name string) bool { return named[name] })
	p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{Names: rest, Action: specs.ActKillProcess})
	return p
}

func allow(names ...string) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: names, Action: specs.ActAllow}
}

func allowIf(name string, conditions ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: conditions}
}

// allowOneOf allows a call whose argument is one of the values. Several conditions on one argument are
// alternatives in the runtime specification's profiles, as in runc.
func allowOneOf(name string, arg uint, values ...uint64) specs.LinuxSyscall {
	call := allowIf(name)
	for _, value := range values {
		call.Args = append(call.Args, equal(arg, value))
	}
	return call
}

func fail(errno unix.Errno, names ...string) specs.LinuxSyscall {
	number := uint(errno)
	return specs.LinuxSyscall{Names: names, Action: specs.ActErrno, ErrnoRet: &number}
}

func equal(arg uint, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: arg, Value: value, Op: specs.OpEqualTo}
}

func masked(arg uint, mask, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: arg, Value: mask, ValueTwo: value, Op: specs.OpMaskedEqual}
}
