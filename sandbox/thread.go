package sandbox

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// errThreadEnded is returned for a step on a thread that has ended.
var errThreadEnded = errors.New("sandbox thread has ended")

// thread is an OS thread of our own. Namespaces, root directory, credentials,
// capabilities and seccomp filters belong to a thread, not to the process, so
// a change of one thread leaves the rest of the daemon untouched. The
// goroutine is locked to it and never unlocked, so the Go runtime destroys the
// thread, instead of reusing it, when the goroutine returns.
//
// It is never the main thread of the process, which cannot be destroyed.
// See RATIONALE.md, "Why is there no second exec?"
type thread struct {
	id    int // as gettid(2)
	steps chan func()
	ended chan struct{}
}

func newThread() *thread {
	t := &thread{steps: make(chan func()), ended: make(chan struct{})}
	started := make(chan struct{})
	go t.run(started)
	<-started
	return t
}

// run runs the thread's steps until the channel is closed. It closes started when it is on its thread.
func (t *thread) run(started chan<- struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// While this goroutine holds the main thread, another goroutine gets another thread.
		elsewhere := make(chan struct{})
		go t.run(elsewhere)
		<-elsewhere
		runtime.UnlockOSThread()
		close(started)
		return
	}
	defer close(t.ended)
	t.id = unix.Gettid()
	close(started)
	for step := range t.steps {
		step()
	}
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
