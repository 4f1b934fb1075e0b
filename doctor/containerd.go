package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/install"
)

// answersWithin bounds each request to containerd.
const answersWithin = 10 * time.Second

// containerd holds the answers of the running containerd.
type containerd struct {
	conn    *grpc.ClientConn
	version string
	err     error // why it does not answer

	cri    []byte // its CRI configuration, JSON
	criErr error

	// Of its process, if it is visible: another PID namespace hides it.
	pid     int
	exe     string // its program
	path    string // its PATH
	config  string // its configuration file
	started time.Time
}

func askContainerd(ctx context.Context, o Options) containerd {
	c := containerd{}
	c.conn, c.err = grpc.NewClient("unix:"+o.Address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if c.err != nil {
		return c
	}
	c.askVersion(ctx)
	if c.err != nil {
		return c
	}
	c.askCRI(ctx)
	if pid, err := peer(o.Address); err == nil {
		c.lookAtProcess(pid)
	}
	return c
}

func (c *containerd) askVersion(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	answer, err := versionapi.NewVersionClient(c.conn).Version(ctx, &emptypb.Empty{})
	c.version, c.err = strings.TrimPrefix(answer.GetVersion(), "v"), plain(err)
}

func (c *containerd) askCRI(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answersWithin)
	defer cancel()
	answer, err := runtimeapi.NewRuntimeServiceClient(c.conn).Status(ctx, &runtimeapi.StatusRequest{Verbose: true})
	c.cri, c.criErr = []byte(answer.GetInfo()["config"]), plain(err)
}

// plain drops gRPC's own words from an error.
func plain(err error) error {
	if s, ok := status.FromError(err); ok && err != nil {
		return errors.New(s.Message())
	}
	return err
}

// peer returns the process that listens on a socket (unix(7), SO_PEERCRED).
func peer(address string) (int, error) {
	conn, err := net.DialTimeout("unix", address, answersWithin)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		credentials, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, inner); err != nil {
		return 0, err
	}
	if credentials.Pid == 0 {
		return 0, errors.New("it runs in another PID namespace")
	}
	return int(credentials.Pid), nil
}

// lookAtProcess reads a process's entries in proc(5).
func (c *containerd) lookAtProcess(pid int) {
	proc := func(name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }
	environment, err := os.ReadFile(proc("environ"))
	if err != nil {
		return
	}
	c.pid = pid
	c.path = firstPath(strings.Split(string(environment), "\x00"))
	c.exe = proc("exe") // runs also when an upgrade has replaced the file
	line, _ := os.ReadFile(proc("cmdline"))
	c.config = configFlag(strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"))
	if cwd, err := os.Readlink(proc("cwd")); err == nil && !filepath.IsAbs(c.config) {
		c.config = filepath.Join(cwd, c.config)
	}
	if stat, err := os.ReadFile(proc("stat")); err == nil {
		c.started = startOf(string(stat))
	}
}

// firstPath returns the PATH that a Go program with this environment sees: of several, the first
// (syscall.Getenv).
func firstPath(environment []string) string {
	for _, variable := range environment {
		if value, ok := strings.CutPrefix(variable, "PATH="); ok {
			return value
		}
	}
	return ""
}

// startOf returns a time by which a process had started, to a hundredth of a second, from its
// proc_pid_stat(5), or no time if that has none. The times of the process's folder would not do: they are
// those of the kernel's cache, which is dropped and filled again.
func startOf(stat string) time.Time {
	// The name before may hold anything but ends with the last parenthesis; what
	// follows begins with field 3.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const starttime, ticksPerSecond = 22 - 3, 100
	var now unix.Timespec
	if len(fields) <= starttime || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return time.Time{}
	}
	ticks, err := strconv.ParseInt(fields[starttime], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(ticks+1)*time.Second/ticksPerSecond - time.Duration(now.Nano()))
}

// configFlag returns the configuration file that containerd's arguments name.
func configFlag(args []string) string {
	for i, arg := range args {
		name, value, joined := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || name != "config" && name != "c" {
			continue
		}
		if joined {
			return value
		}
		if i+1 < len(args) {
			return args[i+1]
		}
	}
	return "/etc/containerd/config.toml"
}

// atLeast reports whether containerd is of that version or a later one.
func (c containerd) atLeast(major, minor int) bool {
	parts := strings.SplitN(c.version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, err1 := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (a > major || a == major && b >= minor)
}

func checkContainerd(_ context.Context, n *node) Result {
	c := n.containerd
	switch {
	case c.err != nil:
		return wrong(fmt.Sprintf("no answer at %s: %v", n.options.Address, c.err),
			"start containerd, or give its socket with --address; this command must run as root")
	case !c.atLeast(1, 7):
		return wrong("version "+c.version, "upgrade containerd to 1.7 or later")
	}
	return ok(fmt.Sprintf("version %s, %s", c.version, c.taskAPI()))
}

// taskAPI returns the version of the task API that this containerd speaks with the shim; see the shim's bootstrap.
func (c containerd) taskAPI() string {
	if c.atLeast(2, 3) {
		return "task API 3"
	}
	return "task API 2"
}

func checkBinary(ctx context.Context, n *node) Result {
	c := n.containerd
	if c.path == "" {
		return unknown("containerd's PATH", "run this command as root, outside of containers")
	}
	for _, dir := range filepath.SplitList(c.path) {
		path := filepath.Join(dir, install.BinaryName)
		info, err := os.Stat(n.path(path))
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			continue
		}
		if info.Mode()&0o022 != 0 {
			return wrong(path+" may be written by others than root", "chmod go-w "+path)
		}
		version, err := shimVersion(ctx, n.path(path))
		if err != nil {
			return wrong(fmt.Sprintf("%s does not run: %v", path, err), "install the binary for this machine's architecture; its file system must not be mounted noexec")
		}
		return ok(path + ", version " + version)
	}
	return wrong(fmt.Sprintf("no %s on containerd's PATH (%s)", install.BinaryName, c.path),
		fmt.Sprintf("%s install --bin-dir FOLDER with one of those folders", install.BinaryName))
}
