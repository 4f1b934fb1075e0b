package shim

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/wasmshim/containerd-shim-wasm/shim/remote"
)

// Descriptors the start verb hands to the daemon.
const (
	listenerFD  = 3
	bootstrapFD = 4
)

// ServeVerb is the verb under which the start verb runs the daemon.
const ServeVerb = "serve"

// groupAnnotations are the annotations whose value groups containers in one shim, as for the stock shim.
var groupAnnotations = []string{"io.containerd.runc.v2.group", sandboxIDAnnotation}

// maxBootstrap bounds what containerd may send to the start verb.
const maxBootstrap = 4 << 20

// Start is the start verb. It runs in the bundle, starts the daemon or finds the one of the same pod, and
// prints the address where it listens.
func Start(flags Flags, in io.Reader, out io.Writer) error {
	bootstrap, err := io.ReadAll(io.LimitReader(in, maxBootstrap))
	if err != nil {
		return fmt.Errorf("read bootstrap parameters: %w", err)
	}
	group, err := groupOf(".", flags.ID)
	if err != nil {
		return err
	}
	address, err := startDaemon(flags, group, bootstrap)
	if err != nil {
		return err
	}
	if err := os.WriteFile("address", []byte(address), 0o600); err != nil {
		return fmt.Errorf("write address: %w", err)
	}
	return json.NewEncoder(out).Encode(remote.Endpoint{Version: apiVersion(bootstrap), Address: address, Protocol: "ttrpc"})
}

// apiVersion returns the newest task API that the calling containerd is sure to speak. Those that send
// bootstrap parameters (2.3 and later) know version 3; 1.7 knows only version 2; those between send nothing
// and take both.
func apiVersion(bootstrap []byte) int {
	if len(bootstrap) == 0 {
		return 2
	}
	var params bootapi.BootstrapParams
	if proto.Unmarshal(bootstrap, &params) == nil && params.ContainerdVersion != "" {
		return 3
	}
	return 2
}

// groupOf returns the group for which the container with that bundle and id shares a shim: its pod, or
// itself.
func groupOf(bundle, id string) (string, error) {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return "", fmt.Errorf("read specification: %w", err)
	}
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return "", fmt.Errorf("decode specification: %w", err)
	}
	for _, annotation := range groupAnnotations {
		if group, ok := spec.Annotations[annotation]; ok {
			return group, nil
		}
	}
	return id, nil
}

// socketPath returns the path of the socket on which the daemon of a group listens. It differs from the
// socket of the stock shim of the same group, which runs beside it.
func socketPath(flags Flags, group string) string {
	sum := sha256.Sum256([]byte(flags.Address + "\x00" + flags.Namespace + "\x00" + group))
	return fmt.Sprintf("%s/%x.sock", SocketDir, sum[:16])
}

func startDaemon(flags Flags, group string, bootstrap []byte) (string, error) {
	path := socketPath(flags, group)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("create state folder: %w", err)
	}
	address := "unix://" + path
	listener, err := listen(path)
	if errors.Is(err, errServed) {
		return address, nil
	}
	if err != nil {
		return "", err
	}
	defer listener.Close()
	if err := spawn(flags, listener, bootstrap); err != nil {
		os.Remove(path)
		return "", err
	}
	return address, nil
}

// errServed reports that a daemon listens on the socket already.
var errServed = errors.New("a shim of the same group is running")

func listen(path string) (*os.File, error) {
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if conn, dialErr := net.Dial("unix", path); dialErr == nil {
			conn.Close()
			return nil, errServed
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the socket of a dead shim: %w", err)
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	unixListener := l.(*net.UnixListener)
	unixListener.SetUnlinkOnClose(false)
	defer unixListener.Close()
	return unixListener.File()
}

func spawn(flags Flags, listener *os.File, bootstrap []byte) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	params, err := memfile(bootstrap)
	if err != nil {
		return err
	}
	defer params.Close()
	args := []string{"-namespace", flags.Namespace, "-id", flags.ID, "-address", flags.Address, "-publish-binary", flags.PublishBinary}
	if flags.Debug {
		args = append(args, "-debug")
	}
	pid, err := forkDaemon(self, append(args, ServeVerb), listener, params)
	if err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	adjustOOMScore(pid)
	return nil
}

// daemonProcs is enough for a daemon that mostly waits; with more, on a machine
// of many cores, the Go runtime's own memory would outweigh the daemon's.
const daemonProcs = "GOMAXPROCS=2"

// forkDaemon replaces os/exec, which forks a probe of the kernel first. That is expensive for a process that
// lives for milliseconds.
func forkDaemon(self string, args []string, listener, params *os.File) (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	files := make([]uintptr, bootstrapFD+1)
	files[0], files[1], files[2] = null.Fd(), null.Fd(), null.Fd()
	files[listenerFD], files[bootstrapFD] = listener.Fd(), params.Fd()
	return syscall.ForkExec(self, append([]string{self}, args...), &syscall.ProcAttr{
		Env: append(os.Environ(), daemonProcs), Files: files, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
}

// memfile returns a file that holds data and is reachable only by its descriptor.
func memfile(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("bootstrap", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "bootstrap")
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("fill memory file: %w", err)
	}
	return f, nil
}

// adjustOOMScore makes the daemon a likelier victim than containerd, its parent, by one: a dead shim costs a
// pod, a dead containerd costs the node. As in the stock shim this is best effort: a containerd without the
// privilege goes on.
func adjustOOMScore(pid int) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", os.Getppid()))
	if err != nil {
		return
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return
	}
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(strconv.Itoa(min(score+1, 1000))), 0)
}
