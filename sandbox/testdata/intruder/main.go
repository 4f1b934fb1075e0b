// intruder is a hostile process in a pid namespace in which children are born. It stops whatever gets the
// next process ids, and tries on each that has not executed a program yet to get into it.
//
// Its arguments are its user, what a process is called until it has executed a program, and a mode: "hold" if
// it is never to let go what it has caught, "privileged" if it is to have CAP_SYS_PTRACE and write to an address
// of each, which comes next, "blind" if it is what it is to be already and has no /proc. It prints one line of JSON for each process that it has caught.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// caught is what the test expects.
type caught struct {
	PID     int
	Reached []string // what it has got of the process, or as privileged, which files that has open
	Written bool     // as privileged: the process's memory was changed
}

// mode is how to treat what is caught.
type mode struct {
	unborn  string // what a process is called before its execve
	hold    bool
	blind   bool
	address uint64 // to write to, 0 if not privileged
}

func main() {
	m := mode{unborn: os.Args[2]}
	var err error
	switch more := os.Args[3:]; {
	case len(more) == 1 && more[0] == "hold":
		m.hold = true
	case len(more) == 1 && more[0] == "blind":
		m.blind = true
	case len(more) == 2 && more[0] == "privileged":
		m.address, err = strconv.ParseUint(more[1], 10, 64)
	}
	if err == nil && !m.blind {
		err = m.enter(os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	runtime.LockOSThread() // a tracer is a thread
	fmt.Println("{}")
	if m.blind {
		m.guess()
	}
	m.hunt()
}

// enter makes the process what a native container's is: it sees its pid namespace and has no more than the
// usual capabilities, CAP_SYS_PTRACE not among them.
func (m mode) enter(user string) error {
	uid, err := strconv.Atoi(user)
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	if m.address != 0 {
		return nil // it keeps all of them
	}
	if uid != 0 {
		return syscall.Setresuid(uid, uid, uid)
	}
	usual := 0
	for _, c := range []int{
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID, unix.CAP_FOWNER, unix.CAP_MKNOD, unix.CAP_NET_RAW, unix.CAP_SETGID,
		unix.CAP_SETUID, unix.CAP_SETFCAP, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT, unix.CAP_KILL, unix.CAP_AUDIT_WRITE,
	} {
		usual |= 1 << c
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: uint32(usual), Permitted: uint32(usual)}}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
		return errno
	}
	return nil
}

// hunt stops whatever comes next, for ever.
func (m mode) hunt() {
	for {
		for next := lastPID() + 1; ; next++ {
			if !stop(next) {
				break // it may have been given already, to a thread of ours
			}
			m.examine(next)
		}
	}
}

// guesses are how many numbers after the last one guess tries.
const guesses = 64

// guess stops whatever comes next, for ever. Without /proc nothing tells it which number that is, nor whether
// what it has caught has executed a program.
func (m mode) guess() {
	for last := os.Getpid(); ; {
		for pid := last + 1; pid <= last+guesses; pid++ {
			if unix.Tgkill(os.Getpid(), pid, 0) == nil { // a thread of ours
				last = pid
				continue
			}
			if unix.Kill(pid, unix.SIGSTOP) != nil {
				continue
			}
			last = pid
			tell(caught{PID: pid, Reached: reach(pid)})
			_ = unix.Kill(-1, unix.SIGCONT)
		}
	}
}

// tell prints what was caught.
func tell(found caught) {
	line, err := json.Marshal(found)
	if err != nil {
		line = []byte(err.Error())
	}
	fmt.Println(string(line))
}

// stop stops a process as soon as it exists, and gives up after a while.
func stop(pid int) bool {
	for range 1000 {
		if unix.Kill(pid, unix.SIGSTOP) == nil {
			return true
		}
	}
	return false
}

// lastPID returns the process id that was given last in our namespace (proc_loadavg(5)).
func lastPID() int {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	pid, _ := strconv.Atoi(fields[len(fields)-1])
	return pid
}

// examine looks at what has been sent SIGSTOP, if that has come before the execve.
func (m mode) examine(pid int) {
	if awaitStop(pid) == m.unborn {
		found := caught{PID: pid}
		if m.address != 0 {
			found.Reached, found.Written = files(pid), write(pid, m.address)
		} else {
			found.Reached = reach(pid)
		}
		tell(found)
		if m.hold {
			return
		}
	}
	// All go on: pid may have been a thread of a worker, which stops as a whole, and have ended since.
	_ = unix.Kill(-1, unix.SIGCONT)
}

// awaitStop waits until a process has stopped and returns what it is called then, or nothing if it has
// ended.
func awaitStop(pid int) string {
	if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", pid)); err == nil {
		return "" // a thread of ours: process 1 is not stopped
	}
	for {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return ""
		}
		_, rest, _ := strings.Cut(string(text), "(")
		name, rest, _ := strings.Cut(rest, ") ")
		switch {
		case strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X"):
			return ""
		case strings.HasPrefix(rest, "T"):
			return name
		}
	}
}

// reach tries what a process may be got into by, and returns what has worked.
func reach(pid int) []string {
	reached := []string{}
	note := func(what string, err error) {
		if err == nil {
			reached = append(reached, what)
		}
	}
	proc := fmt.Sprintf("/proc/%d/", pid)
	for _, name := range []string{"fdinfo", "map_files"} {
		_, err := os.ReadDir(proc + name)
		note(name, err)
	}
	links := []string{"root", "cwd", "exe", "ns/mnt", "ns/net"}
	for fd := range 32 { // root may see the numbers that there are, and no more
		links = append(links, fmt.Sprintf("fd/%d", fd))
	}
	for _, name := range links {
		_, err := os.Readlink(proc + name)
		note("link "+name, err)
		fd, err := unix.Open(proc+name, unix.O_PATH, 0)
		note("path "+name, err)
		_ = unix.Close(fd)
	}
	for _, name := range []string{"maps", "environ", "auxv", "syscall", "stack", "io", "personality", "pagemap"} {
		note(name, readSome(proc+name))
	}
	for name, flags := range map[string]int{"mem to read": unix.O_RDONLY, "mem to write": unix.O_RDWR} {
		fd, err := unix.Open(proc+"mem", flags, 0)
		note(name, err)
		_ = unix.Close(fd)
	}
	reachBySyscall(pid, note)
	return reached
}

// readSome fails for a file that can be opened but tells nothing, too.
func readSome(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.Read(make([]byte, 64))
	return err
}

func reachBySyscall(pid int, note func(what string, err error)) {
	const text = 0x401000 // of a program of Go
	var buffer [8]byte
	local, remote := []unix.Iovec{{Base: &buffer[0], Len: 8}}, []unix.RemoteIovec{{Base: text, Len: 8}}
	_, err := unix.ProcessVMReadv(pid, local, remote, 0)
	note("process_vm_readv", err)
	_, err = unix.ProcessVMWritev(pid, local, remote, 0)
	if err == unix.EFAULT {
		err = nil // allowed, but that page is read-only
	}
	note("process_vm_writev", err)
	if handle, err := unix.PidfdOpen(pid, 0); err == nil {
		for fd := range 32 {
			got, err := unix.PidfdGetfd(handle, fd, 0)
			note("pidfd_getfd", err)
			_ = unix.Close(got)
		}
		_ = unix.Close(handle)
	}
	for name, trace := range map[string]func(int) error{"PTRACE_SEIZE": unix.PtraceSeize, "PTRACE_ATTACH": unix.PtraceAttach} {
		if trace(pid) == nil {
			note(name, nil)
			letGo(pid)
		}
	}
}

// letGo ends tracing, for which the process must be stopped by us.
func letGo(pid int) {
	_ = unix.PtraceInterrupt(pid)
	_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
	_ = unix.PtraceDetach(pid)
}

// files returns what a process has open.
func files(pid int) []string {
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{err.Error()}
	}
	found := []string{}
	for _, entry := range entries {
		target, err := os.Readlink(dir + entry.Name())
		if err != nil {
			target = err.Error()
		}
		found = append(found, target)
	}
	return found
}

// write changes eight bytes of a process's memory.
func write(pid int, address uint64) bool {
	buffer := []byte("intruded")
	n, err := unix.ProcessVMWritev(pid, []unix.Iovec{{Base: &buffer[0], Len: 8}}, []unix.RemoteIovec{{Base: uintptr(address), Len: 8}}, 0)
	return err == nil && n == 8
}
