package sandbox

import (
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// No step runs on the main thread: its changes to the main thread would stay with the process. The goroutines of
// this test run on every thread that the runtime has.
func TestThreadIsNeverTheMainOne(t *testing.T) {
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for range 50 {
				thread := newThread()
				err := thread.do(func() error {
					if id := unix.Gettid(); id == os.Getpid() || id != thread.id {
						t.Errorf("a step runs on thread %d of process %d, not on %d", id, os.Getpid(), thread.id)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				thread.end()
			}
		})
	}
	all.Wait()
}
