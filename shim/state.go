package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/children"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/sandbox/cgroup"
)

// stateFile is in a Wasm container's bundle for as long as the container exists. The delete verb reads it
// when the daemon has died.
const stateFile = "wasm-state.json"

// state is the data with which the delete verb cleans up after a dead daemon.
type state struct {
	PID     int    // 0 before it has a process (writeStateBefore)
	Started uint64 // of the process, in clock ticks since boot: detects a reused pid
	Systemd bool   // systemd made the cgroup
	Spool   string `json:",omitempty"` // the folder for what is written to artifacts (requested)
	exit    *exit  // nil while it runs; follows the rest in the file, see recordExit
}

// exit is how the container's process ended.
type exit struct {
	Status int
	At     time.Time
}

// writeStateBefore writes the state before the container has a process. createContainer hooks run then, and there is a
// folder for what is written to artifacts: if the daemon dies, the delete verb must run the poststop hooks and remove that.
func (c *container) writeStateBefore() error {
	return saveState(c.bundle, c.stateOf(0, 0))
}

func (c *container) stateOf(pid int, started uint64) state {
	s := state{PID: pid, Started: started, Systemd: c.systemd}
	if c.requested != nil {
		s.Spool = c.requested.spool
	}
	return s
}

func (c *container) writeState() error {
	started, err := startTime(c.init.pid())
	if err != nil {
		return err
	}
	return saveState(c.bundle, c.stateOf(c.init.pid(), started))
}

// recordExit appends the exit to the state file. It does not rewrite the file, because the state in it must
// stay whole whenever the daemon dies.
func (c *container) recordExit(e children.End) {
	if err := appendExit(c.bundle, exit{Status: e.Status, At: e.At}); err != nil {
		c.daemon.log.WithError(err).WithField("container", c.id).Warn("record how the container ended: should this shim die, containerd gets exit status 137")
	}
}

func appendExit(bundle string, e exit) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode exit: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(bundle, stateFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func (c *container) removeState() {
	if err := os.Remove(filepath.Join(c.bundle, stateFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.daemon.log.WithError(err).WithField("container", c.id).Warn("remove the state file from the bundle: it goes with that")
	}
}

func saveState(bundle string, s state) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode container state: %w", err)
	}
	path := filepath.Join(bundle, stateFile)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("write container state: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write container state: %w", err)
	}
	return nil
}

// readState reads the state and, if there is one, the exit after it. It ignores an exit that was not written
// to its end.
func readState(bundle string) (state, error) {
	var s state
	data, err := os.ReadFile(filepath.Join(bundle, stateFile))
	if err != nil {
		return s, err
	}
	values := json.NewDecoder(bytes.NewReader(data))
	if err := values.Decode(&s); err != nil {
		return s, fmt.Errorf("decode container state: %w", err)
	}
	var e exit
	if values.Decode(&e) == nil {
		s.exit = &e
	}
	return s, nil
}

// startTime returns when a process started: field 22 of proc_pid_stat(5), after
// a command name that may hold anything but ends with the last ")".
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	_, rest, _ := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
	fields := strings.Fields(rest)
	const after = 22 - 3 // the rest starts with field 3
	if len(fields) <= after {
		return 0, fmt.Errorf("read start time of process %d: short stat", pid)
	}
	return strconv.ParseUint(fields[after], 10, 64)
}

// kill kills the worker. It returns unix.ESRCH if the worker has ended.
func (s state) kill() error {
	if s.PID == 0 {
		return unix.ESRCH
	}
	fd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		return err
	}
	handle := os.NewFile(uintptr(fd), "worker")
	defer handle.Close()
	// The handle is of the process that has the number now; the start time shows whether that is the worker.
	if started, err := startTime(s.PID); err != nil || started != s.Started {
		return unix.ESRCH
	}
	// It cannot be killed while it waits for an artifact.
	return errors.Join(sandbox.AbortConnections(s.PID, handle), unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
}

// destroy ends the processes that a dead daemon left of a container and then removes its files. No step
// depends on the success of another: a process that still runs matters more than a file that is left.
func (d *daemon) destroy(s state, bundle string) error {
	spec, _, err := loadSpec(bundle)
	if err == nil {
		d.awaitServers(s, spec)
	}
	var failed error
	if err := s.kill(); err != nil && !errors.Is(err, unix.ESRCH) {
		failed = fmt.Errorf("kill worker %d: %w", s.PID, err)
	}
	if err != nil {
		return errors.Join(failed, err)
	}
	failed = errors.Join(failed, s.removeCgroup(d.flags.ID, spec))
	d.poststop(context.Background(), d.flags.ID, bundle, spec)
	if spec.Process == nil || spec.Linux == nil {
		return failed
	}
	// This comes last, because it reaches into a volume.
	if command, err := parseCommand(spec.Process.Args); err == nil {
		if err := command.leaveExitCode(spec, children.Killed); err != nil {
			d.log.WithError(err).WithField("container", d.flags.ID).Warn("write exit code for Argo: the workflow may wait for this container")
		}
	}
	return failed
}

// serversLimit bounds the wait for programs that serve artifacts. containerd gives the delete verb 5 s
// (io.containerd.timeout.shim.cleanup).
const serversLimit = 2 * time.Second

// awaitServers lets the programs in a pause container end that serve artifacts. They abort their uploads when the daemon
// has died; the end of the pause container would kill them.
func (d *daemon) awaitServers(s state, spec *specs.Spec) {
	if spec.Linux == nil || !isPause(spec) {
		return
	}
	cg, err := cgroup.Load(d.flags.ID, spec, s.Systemd)
	if err != nil {
		return
	}
	for end := time.Now().Add(serversLimit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		pids, err := cg.Pids()
		if err != nil || !slices.ContainsFunc(pids, func(pid int) bool { return pid != s.PID }) {
			return
		}
	}
}

// removeCgroup kills the processes in the container's cgroup, and removes the cgroup.
func (s state) removeCgroup(id string, spec *specs.Spec) error {
	cg, err := cgroup.Load(id, spec, s.Systemd)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(abortConnectionsIn(cg), cg.Destroy())
}

// abortConnectionsIn aborts the connections of artifacts that processes of a cgroup may wait for: execs outlive their
// container's own process in a shared pid namespace, and one that waits cannot be killed.
func abortConnectionsIn(cg *cgroup.Cgroup) error {
	pids, failed := cg.Pids()
	handles := map[int]*os.File{}
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil { // else it has ended
			handles[pid] = os.NewFile(uintptr(fd), "process of a container")
		}
	}
	// A handle is of the process that had the number when it was opened, perhaps another one's.
	pids, err := cg.Pids()
	failed = errors.Join(failed, err)
	for pid, handle := range handles {
		if slices.Contains(pids, pid) {
			failed = errors.Join(failed, sandbox.AbortConnections(pid, handle))
		}
		handle.Close()
	}
	return failed
}
