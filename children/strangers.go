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

// family distinguishes the children that the daemon has launched from strangers. A stranger is a child that other
// code has made: native code that controls a worker, or traces one before the worker confines itself, can make
// siblings of the worker (CLONE_PARENT, clone(2)). Only the daemon can reap them. A pid namespace does not end
// before its last zombie is reaped (pid_namespaces(7)), so without that the pod would not end.
type family struct {
	mu        sync.Mutex
	launching int         // launches under way: each may have a child that is not known yet
	known     map[int]int // children by pid: more than one if the kernel reuses a pid before forget
}

// own is the family of this process: wait(2) is for the children of the whole process.
var own = family{known: map[int]int{}}

// launch calls make and adds the child that it returns to the known ones.
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
	f.reapStrangers() // was a no-op during the launch
	return err
}

// forget removes a known child. Call it after the child has been reaped.
func (f *family) forget(pid int) {
	f.mu.Lock()
	if f.known[pid]--; f.known[pid] == 0 {
		delete(f.known, pid)
	}
	f.mu.Unlock()
	f.reapStrangers() // does nothing while wait(2) shows a known child first
}

// Watch reaps strangers: children of this process that other code has made. It never returns.
func Watch() { own.watch() }

func (f *family) watch() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	for range ended {
		f.reapStrangers()
	}
}

// reapStrangers reaps every child that has ended, is not known, and is in another pid namespace than this process.
// Programs that are run with package exec are in the same pid namespace, except createContainer hooks, which run
// during a launch. During a launch reapStrangers is a no-op; the end of the launch calls it again. The child of a
// launch that fails may be reaped here: package sandbox does not need its status.
func (f *family) reapStrangers() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.launching == 0 && f.reapSome() {
	}
}

func (f *family) reapSome() bool {
	first := anyEnded()
	if first == 0 || f.known[first] > 0 {
		// Do not list the children now: after a known child is reaped, forget calls reapStrangers.
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
		// A zombie has this link until it is reaped.
		if namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err != nil || namespace == own {
			continue
		}
		reaped, err := unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
		some = some || err == nil && reaped == pid
	}
	return some
}

// anyEnded returns the pid of a child that is a zombie, 0 if there is none.
func anyEnded() int {
	var info exitInfo
	for {
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOWAIT|unix.WNOHANG|unix.WALL, nil)
		if err != unix.EINTR {
			return int(info.pid)
		}
	}
}

// listChildren returns the pids of the children of all threads (proc_pid_task(5)). A kernel without
// CONFIG_PROC_CHILDREN has no such list: there, strangers are reaped in the order in which wait(2) shows them.
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
