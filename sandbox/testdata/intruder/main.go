// intruder is a hostile process in a pid namespace in which sandboxes start their children. It stops the process that
// gets the next pid. If that process has not executed a program yet, intruder tries to get into it.
//
// The arguments are the user, the name of a process before its execve, and optionally a mode. "hold" does not resume
// the processes that were stopped. "privileged" has CAP_SYS_PTRACE and writes to each of these processes, at the
// address in the next argument. "patient" stops nothing, and tries to get into each process all along, until some time
// after its execve. "blind" keeps its user and capabilities, and has no /proc. "strike" sends a signal to each new
// process, after a random part of a time; the next arguments are the signal and the microseconds. intruder prints one
// line of JSON for each process that it has stopped in time, or sent a signal.
package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// caught is one line of output. The test has the same type.
type caught struct {
	PID     int
	Reached []string // what the intruder could reach of the process; if privileged, the files that it has open
	Written bool     // if privileged: the process's memory was changed
}

// mode holds what to do with a stopped process.
type mode struct {
	unborn  string // the name of a process before its execve
	hold    bool
	blind   bool
	patient bool
	address uint64 // to write to, 0 if not privileged
	signal  uint64 // to strike with, 0 for none
	within  uint64 // microseconds
}

func main() {
	m := mode{unborn: os.Args[2]}
	var err error
	switch more := os.Args[3:]; {
	case len(more) == 1 && more[0] == "hold":
		m.hold = true
	case len(more) == 1 && more[0] == "blind":
		m.blind = true
	case len(more) == 1 && more[0] == "patient":
		m.patient = true
	case len(more) == 2 && more[0] == "privileged":
		m.address, err = strconv.ParseUint(more[1], 10, 64)
	case len(more) == 3 && more[0] == "strike":
		for i, number := range []*uint64{&m.signal, &m.within} {
			if err == nil {
				*number, err = strconv.ParseUint(more[1+i], 10, 32)
			}
		}
	}
	if err == nil && !m.blind {
		err = m.enter(os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	runtime.LockOSThread() // ptrace(2): the tracer is one thread
	first := lastPID() + 1 // before the test knows that it can begin
	fmt.Println("{}")
	if m.blind {
		m.guess()
	}
	if m.patient {
		m.follow(first)
	}
	if m.signal != 0 {
		m.strike(first)
	}
	m.hunt()
}

// tries is how often try tries to get into a process that has executed its program.
const tries = 20

// follow tries to get into each process from a number on again and again, for ever.
func (m mode) follow(next int) {
	var passed []int // numbers without a process so far: it has ended, or is not visible yet
	for {
		passed = slices.DeleteFunc(passed, m.try)
		switch {
		case m.try(next):
			next++
		case lastPID() > next:
			passed = append(passed, next)
			next++
		}
	}
}

// try tries to get into a process, and reports whether there was one.
func (m mode) try(pid int) bool {
	name := nameOf(pid)
	if name == "" {
		return false
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", pid)); err == nil { // a thread of ours
		return true
	}
	found := caught{PID: pid}
	for left := tries; left > 0 && name != "" && len(found.Reached) == 0; name = nameOf(pid) {
		if name != m.unborn {
			left--
		}
		found.Reached = reach(pid)
	}
	tell(found)
	return true
}

// strike sends the signal to each process from a number on, for ever.
func (m mode) strike(next int) {
	for ; ; next++ {
		for lastPID() < next {
		}
		if !leads(next) {
			continue
		}
		for until := time.Now().Add(time.Duration(rand.Uint64N(m.within+1)) * time.Microsecond); time.Now().Before(until); {
		}
		if unix.Kill(next, syscall.Signal(m.signal)) == nil {
			tell(caught{PID: next})
		}
	}
}

// leads reports whether a number is that of a process, and not that of a thread, ours for instance, or free again.
func leads(pid int) bool {
	for range 200 { // it may not be visible yet
		if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
			return strings.Contains(string(status), fmt.Sprintf("\nTgid:\t%d\n", pid))
		}
	}
	return false
}

// nameOf returns the name of a process, "" if there is none.
func nameOf(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(text))
}

// enter gives the process the rights of one in a native container: it sees its pid namespace and has only the
// default capabilities, without CAP_SYS_PTRACE.
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
		return nil // privileged: keep all capabilities
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

// hunt stops and examines each new process, for ever.
func (m mode) hunt() {
	for {
		for next := lastPID() + 1; ; next++ {
			if !stop(next) {
				break // a thread of ours may have got this number
			}
			m.examine(next)
		}
	}
}

// guesses is how many numbers after the last one guess tries.
const guesses = 64

// guess stops each new process, for ever. Without /proc it must guess the pid, and cannot find out whether the process
// has executed a program.
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

// tell prints found as one line of JSON.
func tell(found caught) {
	line, err := json.Marshal(found)
	if err != nil {
		line = []byte(err.Error())
	}
	fmt.Println(string(line))
}

// stop stops a process as soon as it exists, and gives up after 1000 attempts.
func stop(pid int) bool {
	for range 1000 {
		if unix.Kill(pid, unix.SIGSTOP) == nil {
			return true
		}
	}
	return false
}

// lastPID returns the most recent pid in our namespace (proc_loadavg(5)).
func lastPID() int {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	pid, _ := strconv.Atoi(fields[len(fields)-1])
	return pid
}

// examine tries to get into a process after stop, if it was stopped before its execve.
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
	// Continue all processes: pid may have been a thread of a worker. Then the whole worker is stopped, and the
	// thread may have ended.
	_ = unix.Kill(-1, unix.SIGCONT)
}

// awaitStop waits until a process has stopped and returns its name then, or "" if it has ended.
func awaitStop(pid int) string {
	if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", pid)); err == nil {
		return "" // a thread of ours: we are process 1, which SIGSTOP does not stop
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

// reach tries all ways to get into a process, and returns those that worked.
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
	for fd := range 32 { // try the numbers: root may list fd/, which is allowed
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

// readSome reads from a file. It also fails if the file can be opened but not read, or is empty.
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
	const text = 0x401000 // address of the code of a Go program
	var buffer [8]byte
	local, remote := []unix.Iovec{{Base: &buffer[0], Len: 8}}, []unix.RemoteIovec{{Base: text, Len: 8}}
	_, err := unix.ProcessVMReadv(pid, local, remote, 0)
	note("process_vm_readv", err)
	_, err = unix.ProcessVMWritev(pid, local, remote, 0)
	if err == unix.EFAULT {
		err = nil // the access is allowed, only the page is read-only
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

// letGo ends tracing. Only a stopped tracee can be detached, so it interrupts the process first.
func letGo(pid int) {
	_ = unix.PtraceInterrupt(pid)
	_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
	_ = unix.PtraceDetach(pid)
}

// files returns the open files of a process.
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
