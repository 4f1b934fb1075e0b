package testregistry

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// listenIn opens a listener in the network namespace of a process; nil if that is this process's
// own. A socket stays in the namespace in which it was made (network_namespaces(7)), so only this
// function needs a thread there.
func listenIn(pid int, address string) (net.Listener, error) {
	theirs := fmt.Sprintf("/proc/%d/ns/net", pid)
	// Not /proc/self: the main thread may be one that a node was launched from.
	same, err := sameFile("/proc/thread-self/ns/net", theirs)
	if same || err != nil {
		return nil, err
	}
	type result struct {
		listener net.Listener
		err      error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		listener, err := enterAndListen(theirs, address)
		done <- result{listener, err}
	}()
	r := <-done
	return r.listener, r.err
}

func enterAndListen(namespace, address string) (net.Listener, error) {
	file, err := os.Open(namespace)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("setns %s: %w", namespace, err)
	}
	// An address that needs no resolver, so the call stays on this thread.
	return net.Listen("tcp", address)
}

func sameFile(a, b string) (bool, error) {
	one, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	other, err := os.Stat(b)
	if err != nil {
		return false, err
	}
	return os.SameFile(one, other), nil
}
