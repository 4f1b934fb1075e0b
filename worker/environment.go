package worker

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/environ"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// environment splits the guest's environment. WASI preview 1 has no working directory. Go's wasip1 port takes
// it from PWD, so environment sets PWD.
func environment(order control.Run) (names, values []string) {
	hasPWD := false
	for _, e := range complete(order.Env, order.Root, os.Getuid()) {
		name, value, _ := strings.Cut(e, "=")
		if name == "" {
			continue
		}
		hasPWD = hasPWD || name == "PWD"
		names, values = append(names, name), append(values, value)
	}
	if !hasPWD && order.Cwd != "" {
		names, values = append(names, "PWD"), append(values, order.Cwd)
	}
	return names, values
}

// complete changes a specification's environment as runc does (libcontainer/env.go, prepareEnv). Of two
// variables with the same name the last counts. If HOME is unset or empty, it becomes the home directory of
// the user uid in the container with that root directory. A specification without an environment gets none.
func complete(env []string, root string, uid int) []string {
	if env == nil {
		return nil
	}
	completed := slices.DeleteFunc(environ.Unique(env), func(variable string) bool { return variable == "HOME=" || variable == "HOME" })
	if hasHome(completed) {
		return completed
	}
	return append(completed, "HOME="+home(root, uid))
}

func hasHome(env []string) bool {
	return slices.ContainsFunc(env, func(variable string) bool { return strings.HasPrefix(variable, "HOME=") })
}

// home returns the home directory of the first user with that id in the container's passwd(5), "/" if there
// is none. As in runc, an unreadable or invalid file is not an error: few images have one.
func home(root string, uid int) string {
	const none = "/"
	passwd, err := openPasswd(root)
	if err != nil {
		return none
	}
	defer passwd.Close()
	found := false
	users, err := user.ParsePasswdFilter(io.LimitReader(passwd, maxPasswd), func(u user.User) bool {
		first := !found && u.Uid == uid
		found = found || first
		return first
	})
	if err != nil || !found {
		return none
	}
	return users[0].Home
}

// maxPasswd is the limit, in bytes, of the file that is read before a guest starts: about ten thousand users.
const maxPasswd = 1 << 20

// openPasswd opens /etc/passwd as the container's own processes would find it. It comes from the image, and a
// guest that shares a volume may change it at any time, so openPasswd never leaves the root and never blocks.
func openPasswd(root string) (*os.File, error) {
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := openBelow(dir, "etc/passwd")
	if err != nil {
		return nil, fmt.Errorf("open the container's /etc/passwd: %w", err)
	}
	passwd := os.NewFile(uintptr(fd), "/etc/passwd")
	info, err := passwd.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("the container's /etc/passwd is not a regular file")
	case info.Size() > maxPasswd:
		err = fmt.Errorf("the container's /etc/passwd is larger than %d bytes", maxPasswd)
	default:
		return passwd, nil
	}
	passwd.Close()
	return nil, err
}

// openBelow opens a file for reading, and resolves all links as if dir were the root. It never waits for the
// other end of a FIFO or a device. See openat2(2).
func openBelow(dir *os.File, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	var err error
	const tries = 100
	for range tries {
		var fd int
		fd, err = unix.Openat2(int(dir.Fd()), name, &how)
		// EAGAIN: because of a concurrent rename, the kernel could not decide whether ".." leads out.
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
	return -1, err
}
