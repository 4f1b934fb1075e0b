package step

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// watch waits for changes in folders (inotify(7)). Without one, because the user has as many as the kernel allows, it
// waits for a moment at a time.
type watch struct {
	file    *os.File
	folders map[string]int // the watch at each path
	partial bool           // not all folders are watched
}

func newWatch() *watch {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return &watch{}
	}
	return &watch{file: os.NewFile(uintptr(fd), "inotify"), folders: map[string]int{}}
}

func (w *watch) close() {
	if w.file != nil {
		w.file.Close()
	}
}

// add watches a folder, if there is one at the path. To add it again changes nothing. Another folder that was at the path
// is watched no longer: neighbours may move folders away without end, and all wait containers of the node with one user
// share the number of watches (fs.inotify.max_user_watches).
func (w *watch) add(path string) {
	if w.file == nil {
		return
	}
	conn, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		added, err := unix.InotifyAddWatch(int(fd), path, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR|unix.IN_DONT_FOLLOW)
		if err != nil {
			w.partial = w.partial || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM)
			return
		}
		before, was := w.folders[path]
		w.folders[path] = added
		if was && !slices.Contains(slices.Collect(maps.Values(w.folders)), before) {
			_, _ = unix.InotifyRmWatch(int(fd), uint32(before)) // the kernel has removed it with its folder, maybe
		}
	})
}

// quietInterval is the time after which a look is due without a change: a folder that could not be watched may have
// one.
const quietInterval = 10 * time.Second

// wait returns after a change, or when a look is due, or with the error of ctx.
func (w *watch) wait(ctx context.Context) error {
	if w.file == nil {
		moment, cancel := context.WithTimeout(ctx, pollInterval)
		defer cancel()
		<-moment.Done()
		return ctx.Err()
	}
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Now()) })
	defer stop()
	interval := quietInterval
	if w.partial {
		interval, w.partial = pollInterval, false
	}
	_ = w.file.SetReadDeadline(time.Now().Add(interval))
	if ctx.Err() == nil {
		_, _ = w.file.Read(make([]byte, 4096)) // what changed does not matter
	}
	return ctx.Err()
}
