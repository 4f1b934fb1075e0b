package children

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// family tells the daemon's children apart. A process that is no child of ours by our own doing can become one:
// native code that has taken a worker over, or traces one before it confines itself, makes siblings of it
// (CLONE_PARENT, clone(2)). Nobody else would reap those, and a pid namespace does not end before its last zombie
// is reaped (pid_namespaces(7)), so no pod would.
type family struct {
	mu        sync.Mutex
	launching int         // launches under way: each may have a child that is not known yet
	known     map[int]int // by pid, which has its next owner before the last one is forgotten
}

// own are those of this process, as waiting for them is the process's.
var own = family{known: map[int]int{}}

// launch has a child made, which is known from then on.
func (f *family) launch(make func() (pid int, err error)) error {
	f.mu.Lock()
	f.launching++
	f.mu.Unlock()
	pid, err := make()
	f.mu.Lock()
	f.launching--
	if err == nil {
		f.known[pid]++
	}
	f.mu.Unlock()
	f.reapStrangers() // which the launch has put off
	return err
}

// forget is called for a known child once it has been reaped.
func (f *family) forget(pid int) {
	f.mu.Lock()
	if f.known[pid]--; f.known[pid] == 0 {
		delete(f.known, pid)
	}
	f.mu.Unlock()
	f.reapStrangers() // which may have waited for this one
}

// Watch reaps, for as long as the process lives, the children that others have given it.
func Watch() { own.watch() }

func (f *family) watch() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	for range ended {
		f.reapStrangers()
	}
}

// reapStrangers reaps every child that has ended, is not known, and is in another pid namespace than this process.
// Programs that are run with package exec are in the same, but for hooks that a launch waits for. Of a launch that
// fails, package sandbox wants no status. While one is under way nothing is done: its end calls again.
func (f *family) reapStrangers() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.launching == 0 && f.reapSome() {
	}
}

func (f *family) reapSome() bool {
	first := anyEnded()
	if first == 0 || f.known[first] > 0 {
		// The list is not worth the time: whoever reaps the known one has us look again.
		return false
	}
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return false
	}
	some := false
	for _, pid := range append(listChildren(), first) {
		if f.known[pid] > 0 {
			continue
		}
		// It has one for as long as it is not reaped.
		if namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err != nil || namespace == own {
			continue
		}
		reaped, err := unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
		some = some || err == nil && reaped == pid
	}
	return some
}

// anyEnded returns the pid of a child that has ended and is not reaped, 0 if there is none.
func anyEnded() int {
	// siginfo_t as waitid(2) fills it; unix.Siginfo does not name these fields.
	var info struct {
		_   [4]int32
		pid int32
		_   [108]byte
	}
	for {
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOWAIT|unix.WNOHANG|unix.WALL, nil)
		if err != unix.EINTR {
			return int(info.pid)
		}
	}
}

// listChildren returns the pids of the children of all threads (proc_pid_task(5)); none on a kernel without
// CONFIG_PROC_CHILDREN, where strangers are reaped in the order in which wait(2) shows them.
func listChildren() []int {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	var pids []int
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may have ended
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
