package shim

import (
	"crypto/rand"
	"time"

	"golang.org/x/sys/unix"
)

// end is how a process ended.
type end struct {
	status int // exit code, or 128 + the signal that killed it
	signal unix.Signal
	at     time.Time
}

// killed is the status of a process that SIGKILL ended.
const killed = 128 + int(unix.SIGKILL)

// wait reaps a child of the daemon; the channel gets its end once. There is one
// wait for each child, so nobody steals anybody's exit status.
func wait(pid int) <-chan end {
	ended := make(chan end, 1)
	go func() {
		var status unix.WaitStatus
		for {
			_, err := unix.Wait4(pid, &status, 0, nil)
			if err == unix.EINTR {
				continue
			}
			break
		}
		e := end{status: status.ExitStatus(), at: time.Now()}
		if status.Signaled() {
			e.status, e.signal = 128+int(status.Signal()), status.Signal()
		}
		ended <- e
	}()
	return ended
}

// randomID names something for as long as it lives.
func randomID() string { return rand.Text()[:12] }
