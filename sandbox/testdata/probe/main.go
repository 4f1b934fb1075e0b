// probe prints, as JSON, what a worker sees and may do in its sandbox.
package main

import (
	"encoding/json"
	"os"

	"golang.org/x/sys/unix"
)

// report is the output. The test has the same type.
type report struct {
	PID, UID, GID, Umask int
	Groups               []int
	Hostname, Dir        string
	NoNewPrivs, Seccomp  int
	Effective, Permitted uint64
	Bounding, Ambient    uint64
	Root, AboveRoot      []string
	Rootfs, Volume, Proc []string
	Attempts             map[string]string
	Directories, Sockets int // open descriptors
	Files                int
}

// standInFor is the environment variable with the program for which the probe is the stand-in.
const standInFor = "STAND_IN_FOR"

// rootfs is the path of the container's root file system.
var rootfs = "/rootfs"

func main() {
	if program := os.Getenv(standInFor); program != "" {
		become(program)
	}
	if _, err := os.Stat(rootfs); err != nil {
		rootfs = ""
	}
	umask := unix.Umask(0)
	groups, _ := unix.Getgroups()
	hostname, _ := os.Hostname()
	dir, _ := os.Getwd()
	r := report{
		PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Umask: umask, Groups: groups, Hostname: hostname, Dir: dir,
		NoNewPrivs: get(unix.PR_GET_NO_NEW_PRIVS), Seccomp: get(unix.PR_GET_SECCOMP),
		Root: names("/"), AboveRoot: names("/../.."), Rootfs: names(rootfs + "/"), Volume: names(rootfs + "/v"), Proc: names(rootfs + "/proc"),
		Attempts: attempts(),
	}
	r.capabilities()
	r.descriptors()
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		os.Exit(1)
	}
}

// become does the same as a stand-in: it leaves the directory in which it was started
// and executes the program. Only the stand-in's own file can be reached from that directory.
func become(program string) {
	err := os.Chdir("/")
	if err == nil {
		err = unix.Exec(program, os.Args, nil)
	}
	os.Stderr.WriteString(err.Error())
	os.Exit(1)
}

func get(option int) int {
	value, err := unix.PrctlRetInt(option, 0, 0, 0, 0)
	if err != nil {
		return -1
	}
	return value
}

func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{err.Error()}
	}
	found := []string{}
	for _, entry := range entries {
		found = append(found, entry.Name())
	}
	return found
}

// attempts tries operations, most of which a sandboxed process may not do. It returns their results.
func attempts() map[string]string {
	write := func(path string) error { return os.WriteFile(path, []byte("x"), 0o644) }
	tried := map[string]string{}
	for name, err := range map[string]error{
		"write to the root":   write("/new"),
		"write to the worker": write("/worker"),
		"write to the volume": write(rootfs + "/v/new"),
		"write to the tmpfs":  write(rootfs + "/t/new"),
		"write to reserved":   write("/v/new"),
		"mount":               unix.Mount("tmpfs", rootfs+"/t", "tmpfs", 0, ""),
		"remount":             unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, ""),
		"unmount":             unix.Unmount(rootfs+"/v", unix.MNT_DETACH),
		"change root":         unix.Chroot(rootfs + "/"),
		"set hostname":        unix.Sethostname([]byte("changed")),
		"denied by seccomp":   unix.Mkdir(rootfs+"/t/dir", 0o755),
		"execute a program":   execute(),
		"bind TCP":            bindTCP(),
	} {
		tried[name] = "allowed"
		if err != nil {
			var errno unix.Errno
			if asErrno(err, &errno) {
				tried[name] = unix.ErrnoName(errno)
			}
		}
	}
	return tried
}

// execute tries to execute a program whose interpreter is missing: if execve is allowed, it returns ENOENT.
func execute() error {
	program := rootfs + "/t/program"
	if err := os.WriteFile(program, []byte("#!/missing\n"), 0o755); err != nil {
		return err
	}
	return unix.Exec(program, []string{"program"}, nil)
}

func bindTCP() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{})
}

func asErrno(err error, errno *unix.Errno) bool {
	if path, ok := err.(*os.PathError); ok {
		err = path.Err
	}
	found, ok := err.(unix.Errno)
	*errno = found
	return ok
}

func (r *report) capabilities() {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return
	}
	r.Effective = uint64(data[1].Effective)<<32 | uint64(data[0].Effective)
	r.Permitted = uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted)
	for c := range 64 {
		if set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err == nil && set == 1 {
			r.Bounding |= 1 << c
		}
		if set, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(c), 0, 0); err == nil && set == 1 {
			r.Ambient |= 1 << c
		}
	}
}

// descriptors counts the open descriptors after the standard streams.
func (r *report) descriptors() {
	for fd := 3; fd < 1024; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			r.Directories++
		case unix.S_IFSOCK:
			r.Sockets++
		case unix.S_IFREG:
			r.Files++
		}
	}
}
