package sandbox

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// errThreadEnded is returned for a step asked of a thread that has ended.
var errThreadEnded = errors.New("sandbox thread has ended")

// thread is an OS thread of our own. Namespaces, root directory, credentials,
// capabilities and seccomp filters belong to a thread, not to the process, so
// what one thread takes on leaves the rest of the daemon untouched. The
// goroutine is locked to it and never unlocked, so the Go runtime destroys the
// thread, instead of reusing it, when the goroutine returns.
//
// The main thread of a process cannot be destroyed: a program that uses this
// package must lock its main goroutine to the main thread during init.
type thread struct {
	id    int // as gettid(2)
	steps chan func()
	ended chan struct{}
}

func newThread() *thread {
	t := &thread{steps: make(chan func()), ended: make(chan struct{})}
	started := make(chan struct{})
	go func() {
		defer close(t.ended)
		runtime.LockOSThread()
		t.id = unix.Gettid()
		close(started)
		for step := range t.steps {
			step()
		}
	}()
	<-started
	return t
}

// do runs step on the thread and returns its error.
func (t *thread) do(step func() error) error {
	result := make(chan error, 1)
	select {
	case t.steps <- func() { result <- step() }:
		return <-result
	case <-t.ended:
		return errThreadEnded
	}
}

// end lets the thread die. It must be called once, after the last do.
func (t *thread) end() {
	close(t.steps)
	<-t.ended
}
