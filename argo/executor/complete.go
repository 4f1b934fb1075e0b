package executor

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// safetyPause is the longest time between two looks at a volume whose changes are notified.
	safetyPause = 30 * time.Second
	// pollPause is that without notification: the kernel allows a user 128 instances of inotify, see
	// fs.inotify.max_user_instances in inotify(7).
	pollPause = 200 * time.Millisecond
	// settlePause is the shortest time between two looks: another container may cause as many
	// notifications as it likes.
	settlePause = 5 * time.Millisecond
)

// completion is the end of the main containers.
type completion struct {
	volume *volume
	names  []string
	done   chan struct{} // closed when all of them have ended
	log    *slog.Logger
}

// exitFile is where the emissary of a container leaves its exit code.
func exitFile(container string) string { return "ctr/" + container + "/exitcode" }

// complete reports whether all main containers have ended.
func (c *completion) complete() bool {
	for _, name := range c.names {
		if !c.volume.exists(exitFile(name)) {
			return false
		}
	}
	return true
}

// watch closes done when all main containers have ended. It returns then, or with ctx.
func (c *completion) watch(ctx context.Context) {
	w := newWatcher(c.volume.root.Name())
	if w.err != nil {
		c.log.Warn("changes of the volume are not notified, it is polled", "error", w.err)
	}
	defer w.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		// Watched first and looked at then, so that nothing is missed in between.
		w.add("", "ctr")
		for _, name := range c.names {
			w.add("ctr/" + name)
		}
		if c.complete() {
			close(c.done)
			return
		}
		timer.Reset(w.pause())
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-w.changed:
			time.Sleep(settlePause)
		}
	}
}

// watcher waits for changes of directories. What it says is a hint to look again, so that it does no
// harm if one of them has been replaced by another.
type watcher struct {
	dir     string
	fd      int
	file    *os.File
	changed chan struct{}
	err     error
}

func newWatcher(dir string) *watcher {
	w := &watcher{dir: dir, changed: make(chan struct{}, 1)}
	w.fd, w.err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if w.err != nil {
		return w
	}
	w.file = os.NewFile(uintptr(w.fd), "inotify")
	go w.read()
	return w
}

func (w *watcher) read() {
	events := make([]byte, 4<<10)
	for {
		if _, err := w.file.Read(events); err != nil {
			return
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// add watches directories. Those that are not there yet appear in one that is watched.
func (w *watcher) add(names ...string) {
	if w.file == nil {
		return
	}
	const mask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW
	for _, name := range names {
		_, err := unix.InotifyAddWatch(w.fd, w.dir+"/"+name, mask)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			w.err = err
		}
	}
}

func (w *watcher) pause() time.Duration {
	if w.err != nil {
		return pollPause
	}
	return safetyPause
}

func (w *watcher) close() {
	if w.file != nil {
		w.file.Close()
	}
}
