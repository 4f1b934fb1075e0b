// hostile is native code in the worker's place: it confines itself as the worker does in the role of its
// first argument, makes the attempt that its second argument names, and prints the result.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/worker/confine"
)

func main() {
	runtime.LockOSThread()
	roles := map[string]func() error{
		"unconfined": func() error { return nil },
		"guest":      confine.Guest, "emissary": confine.Emissary, "signaller": confine.Signaller, "preparer": confine.Preparer,
	}
	if err := roles[os.Args[1]](); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var errno syscall.Errno
	err := attempts[os.Args[2]]()
	switch {
	case err == nil:
		fmt.Print("allowed")
	case errors.As(err, &errno):
		fmt.Print(unix.ErrnoName(errno))
	default:
		fmt.Print(err)
	}
}

var attempts = map[string]func() error{
	"execute a program":         execute,
	"fork":                      func() error { return fork(0) },
	"make a sibling":            func() error { return fork(unix.CLONE_PARENT) },
	"new user namespace":        func() error { return fork(unix.CLONE_NEWUSER) },
	"unshare":                   func() error { return unix.Unshare(unix.CLONE_FILES) },
	"join a namespace":          func() error { return unix.Setns(0, unix.CLONE_NEWNET) },
	"trace":                     func() error { return call(unix.SYS_PTRACE, unix.PTRACE_TRACEME) },
	"read another's memory":     func() error { return call(unix.SYS_PROCESS_VM_READV, uintptr(os.Getpid())) },
	"open a process":            func() error { return call(unix.SYS_PIDFD_OPEN, uintptr(os.Getpid())) },
	"take another's descriptor": func() error { return call(unix.SYS_PIDFD_GETFD, 0) },
	"signal another process":    func() error { return unix.Kill(4194303, 0) },
	"mount":                     func() error { return unix.Mount("tmpfs", "/rootfs", "tmpfs", 0, "") },
	"change root":               func() error { return unix.Chroot("/") },
	"make a device":             func() error { return unix.Mknod(root()+"/t/device", unix.S_IFCHR, int(unix.Mkdev(1, 3))) },
	"open a file by its handle": func() error { return call(unix.SYS_OPEN_BY_HANDLE_AT, 0) },
	"socket: internet":          func() error { return socket(unix.AF_INET, unix.SOCK_STREAM, 0) },
	"socket: netlink":           func() error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, 0) },
	"socket: packets":           func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) },
	"socket: unix":              func() error { return socket(unix.AF_UNIX, unix.SOCK_STREAM, 0) },
	"io_uring":                  func() error { return call(unix.SYS_IO_URING_SETUP, 1) },
	"keys":                      func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, true); return err },
	"bpf":                       func() error { return call(unix.SYS_BPF, unix.BPF_PROG_LOAD) },
	"userfaultfd":               func() error { return call(unix.SYS_USERFAULTFD, 0xfff) },
	"performance counters":      func() error { return call(unix.SYS_PERF_EVENT_OPEN, 0) },
	"become another user":       func() error { return call(unix.SYS_SETRESUID, 1, 1, 1) },
	"hold a file: flock":        func() error { return unix.Flock(0, unix.LOCK_EX) },
	"hold a file: fcntl":        func() error { return lock() },
	"hold a file: lease":        func() error { _, err := unix.FcntlInt(0, unix.F_SETLEASE, unix.F_RDLCK); return err },
	"change a file's mode":      func() error { return unix.Fchmod(0, 0o600) },
	"change a file's owner":     func() error { return unix.Fchown(0, 0, 0) },
	"watch files":               func() error { return call(unix.SYS_INOTIFY_INIT1, 0) },
	"open a file":               func() error { return open("/file", unix.O_RDONLY) },
	"write a file":              func() error { return open("/t/file", unix.O_CREAT|unix.O_WRONLY) },
	"map machine code":          func() error { return mapped(unix.PROT_READ | unix.PROT_EXEC) },
	"map writable machine code": func() error { return mapped(unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC) },
	"make memory machine code":  protect,
	"file without a name":       func() error { _, err := unix.MemfdCreate("x", 0); return err },
	"shared memory":             func() error { return call(unix.SYS_SHMGET, unix.IPC_PRIVATE, 4096, 0o600) },
	"another personality":       func() error { return call(unix.SYS_PERSONALITY, 0x0400000) },
	"type on the terminal":      func() error { return call(unix.SYS_IOCTL, 0, unix.TIOCSTI) },
	"raise its limits":          func() error { return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 32, Max: 32}) },
	"be dumped and traced":      func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
	"choose its processors":     func() error { return unix.SchedSetaffinity(0, &unix.CPUSet{1}) },
	"a thread":                  thread,
	"nothing":                   func() error { return nil },
}

// root returns the path of the container's root file system, "" in a native container.
func root() string {
	if _, err := os.Stat("/rootfs"); err != nil {
		return ""
	}
	return "/rootfs"
}

// execute executes this program again.
func execute() error {
	path := "/worker"
	if root() == "" && os.Args[1] == "unconfined" {
		path = "worker" // in the working directory of a stand-in
	}
	return unix.Exec(path, []string{"worker", "unconfined", "nothing"}, nil)
}

func call(number uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

// fork makes a process that exits at once.
func fork(flags uintptr) error {
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		for {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return nil
}

func socket(family, kind, protocol int) error {
	_, err := unix.Socket(family, kind, protocol)
	return err
}

func lock() error {
	const ofdSetLock = 37 // F_OFD_SETLK
	return unix.FcntlFlock(0, ofdSetLock, &unix.Flock_t{Type: unix.F_RDLCK})
}

func open(path string, flags int) error {
	_, err := unix.Openat(unix.AT_FDCWD, root()+path, flags, 0o600)
	return err
}

func mapped(protection int) error {
	_, err := unix.Mmap(-1, 0, os.Getpagesize(), protection, unix.MAP_PRIVATE|unix.MAP_ANON)
	return err
}

func protect() error {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	return unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC)
}

// thread starts a thread and waits for it.
func thread() error {
	done := make(chan int)
	go func() {
		runtime.LockOSThread()
		done <- unix.Gettid()
	}()
	if <-done == unix.Gettid() {
		return errors.New("no other thread")
	}
	return nil
}
