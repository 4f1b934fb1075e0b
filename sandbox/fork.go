package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	goruntime "runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// birth holds everything that a child needs between clone(2) and execve(2).
//
// The functions of packages syscall and os do not fit here. Their child shares the
// daemon's memory until it executes (CLONE_VM), and it is born in a pid namespace in
// which other processes may have CAP_SYS_PTRACE. Our child has a copy of the memory: a change
// there affects only a process that is confined already.
// See RATIONALE.md, "Why a fork of our own?"
type birth struct {
	path       *byte
	argv, envv []*byte
	files      []int // become the descriptors from 0 on; none of them is below len(files)
	runtime    []int // those of Go's runtime, which the child closes at once
	report     int   // the child writes the failed step here; closed by execve
	outcome    int   // the other end
	word       int   // the child reads the word to execute the worker here
	give       int   // the other end, which the child closes at once
	terminal   bool
}

// newBirth prepares all but the descriptors.
func newBirth(l Launch) (*birth, error) {
	b := &birth{terminal: l.Terminal}
	path := workerPath
	if l.Native {
		path = standInName // in the thread's own directory, see enterOwnRoot
	}
	var err error
	if b.path, err = syscall.BytePtrFromString(path); err != nil {
		return nil, fmt.Errorf("path of the worker: %w", err)
	}
	if b.argv, err = syscall.SlicePtrFromStrings(l.Argv); err != nil {
		return nil, fmt.Errorf("process.args: %w", err)
	}
	if b.envv, err = syscall.SlicePtrFromStrings(l.Env); err != nil {
		return nil, fmt.Errorf("environment of the worker: %w", err)
	}
	if b.runtime, err = runtimeDescriptors(); err != nil {
		return nil, err
	}
	return b, nil
}

// take leaves only the descriptors that the child needs in the calling thread's table.
func (b *birth) take(files []int) error {
	var outcome, word [2]int
	for _, pipe := range []*[2]int{&outcome, &word} {
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("create a pipe for the worker's start: %w", err)
		}
	}
	kept, err := keepDescriptors(append(files, outcome[1], outcome[0], word[0], word[1]), len(files), b.runtime)
	if err != nil {
		return err
	}
	b.files, kept = kept[:len(files)], kept[len(files):]
	b.report, b.outcome, b.word, b.give = kept[0], kept[1], kept[2], kept[3]
	return nil
}

// start forks the child, which waits for the word (execute), and returns its pid. The
// calling thread can then only call execute, and end.
func (b *birth) start() (int, error) {
	// No other thread may make the process dumpable during the clone, see setCredentials.
	hidden.RLock()
	pid, errno := b.clone()
	hidden.RUnlock()
	goruntime.KeepAlive(b)
	// The thread would close its copies too, but only at its end.
	for _, fd := range append(b.files, b.report, b.word) {
		unix.Close(fd)
	}
	if errno != 0 {
		return 0, fmt.Errorf("clone: %w", errno)
	}
	return pid, nil
}

// execute gives the child the word and returns when the child has executed the worker. It must be
// called on the thread that called start.
func (b *birth) execute() error {
	_, err := unix.Write(b.give, []byte{1})
	if err != nil && !errors.Is(err, unix.EPIPE) { // of a child that was killed
		return fmt.Errorf("give the worker's child the word: %w", err)
	}
	return b.awaitExec()
}

// awaitExec waits until the child has executed the worker, which closes its end of the
// pipe. It blocks the launching thread, because the child has a copy of the daemon's memory: each
// page that another thread writes meanwhile has to be copied. A killed child closes the pipe
// too; the caller notices that when it waits for the child.
func (b *birth) awaitExec() error {
	var failed [8]byte
	for {
		n, err := unix.Read(b.outcome, failed[:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("read whether the worker was executed: %w", err)
		case n == len(failed):
			step := stepNames[binary.NativeEndian.Uint32(failed[:4])]
			return fmt.Errorf("%s: %w", step, syscall.Errno(binary.NativeEndian.Uint32(failed[4:])))
		default:
			return nil
		}
	}
}

// clone starts the child and returns its pid. Between fork and execve a child of a
// process with threads may only make system calls: no function here can grow the stack or
// allocate, and no signal handler of Go's runtime runs.
//
//go:norace
//go:nosplit
//go:noinline
func (b *birth) clone() (int, syscall.Errno) {
	every, before := ^uint64(0), uint64(0)
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&every)), uintptr(unsafe.Pointer(&before)), sigsetSize, 0, 0)
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		b.run()
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&before)), 0, sigsetSize, 0, 0)
	return int(pid), errno
}

const (
	sigsetSize = 8
	signals    = 64 // of x86-64 and arm64 (signal(7))
)

// Steps of the child, as it reports them.
const (
	startSession = iota + 1
	placeFiles
	takeTerminal
	awaitWord
	execute
)

var stepNames = map[uint32]string{
	startSession: "start the worker's session",
	placeFiles:   "place the worker's files",
	takeTerminal: "give the worker its terminal",
	awaitWord:    "await the word to execute the worker",
	execute:      "execute the worker",
}

// run is the child. It does not return.
//
//go:norace
//go:nosplit
func (b *birth) run() {
	for _, fd := range b.runtime {
		syscall.RawSyscall6(unix.SYS_CLOSE, uintptr(fd), 0, 0, 0, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_CLOSE, uintptr(b.give), 0, 0, 0, 0, 0)
	byDefault, none := [4]uint64{}, uint64(0) // struct sigaction of the kernel, with SIG_DFL
	for signal := uintptr(1); signal <= signals; signal++ {
		syscall.RawSyscall6(unix.SYS_RT_SIGACTION, signal, uintptr(unsafe.Pointer(&byDefault)), 0, sigsetSize, 0, 0)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&none)), 0, sigsetSize, 0, 0)
	failed := [2]uint32{}
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSID, 0, 0, 0, 0, 0, 0)
	failed[0] = startSession
	for i, fd := range b.files {
		if errno != 0 {
			break
		}
		_, _, errno = syscall.RawSyscall6(unix.SYS_DUP3, uintptr(fd), uintptr(i), 0, 0, 0, 0)
		failed[0] = placeFiles
	}
	if b.terminal && errno == 0 {
		_, _, errno = syscall.RawSyscall6(unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 1, 0, 0, 0)
		failed[0] = takeTerminal
	}
	for said := byte(0); errno == 0 && said == 0; {
		var n uintptr
		n, _, errno = syscall.RawSyscall6(unix.SYS_READ, uintptr(b.word), uintptr(unsafe.Pointer(&said)), 1, 0, 0, 0)
		failed[0] = awaitWord
		switch {
		case errno == unix.EINTR:
			errno = 0
		case errno == 0 && n == 0: // the writing end is closed
			errno = unix.ECANCELED
		}
	}
	if errno == 0 {
		_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVE, uintptr(unsafe.Pointer(b.path)),
			uintptr(unsafe.Pointer(unsafe.SliceData(b.argv))), uintptr(unsafe.Pointer(unsafe.SliceData(b.envv))), 0, 0, 0)
		failed[0] = execute
	}
	failed[1] = uint32(errno)
	syscall.RawSyscall6(unix.SYS_WRITE, uintptr(b.report), uintptr(unsafe.Pointer(&failed)), unsafe.Sizeof(failed), 0, 0, 0)
	for {
		syscall.RawSyscall6(unix.SYS_EXIT, 253, 0, 0, 0, 0, 0)
	}
}
