package testcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
)

// process identifies one process of the machine: its number may be reused later, but not with the same
// start time.
type process struct {
	PID   int    `json:"pid"`   // as seen from the machine
	Start string `json:"start"` // in clock ticks since the boot
}

func identify(pid int) (process, error) {
	stat, err := readStat(pid)
	if err != nil {
		return process{}, err
	}
	return process{PID: pid, Start: stat.start}, nil
}

// alive reports whether a thread of the process runs. When a process is killed, its first thread can be a zombie while
// the others still hold its descriptors: another process cannot listen on its port yet.
func (p process) alive() bool {
	if p.PID == 0 {
		return false
	}
	stat, err := readStat(p.PID)
	return err == nil && stat.start == p.Start && stat.state != "X" && (stat.state != "Z" || stat.threads > 1)
}

// signal sends a signal if the number still belongs to the same process.
func (p process) signal(s syscall.Signal) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %v to process %d: %w", s, p.PID, err)
	}
	return nil
}

func (p process) gone(ctx context.Context) error {
	return poll.Until(ctx, func() (bool, error) { return !p.alive(), nil })
}

type stat struct {
	state, start string
	parent       int
	threads      int // those that have not ended; a zombie that is a process's first thread is counted
	name         string
	cpu          time.Duration // with that of children that have ended and were waited for
}

// readStat reads what proc_pid_stat(5) describes. The name is in parentheses and may contain parentheses.
func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	first, last := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if first < 0 || last < first {
		return stat{}, fmt.Errorf("/proc/%d/stat holds no name: %q", pid, text)
	}
	// Fields 3 to 22: state, parent, … start time.
	fields := strings.Fields(string(text[last+1:]))
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat is too short: %q", pid, text)
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	threads, err := strconv.Atoi(fields[17])
	if err != nil {
		return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	s := stat{state: fields[0], start: fields[19], parent: parent, threads: threads, name: string(text[first+1 : last])}
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		s.cpu += time.Duration(ticks) * clockTick
	}
	return s, nil
}

// onNode returns the processes that descend from the node's first one, by their number on the machine. A
// command of [Cluster.StartOnNode] and its children are not among them.
func (c *Cluster) onNode() (map[int]stat, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	all := map[int]stat{}
	for _, folder := range folders {
		pid, err := strconv.Atoi(filepath.Base(folder))
		if err != nil {
			return nil, err
		}
		// A process that ends meanwhile is skipped.
		if s, err := readStat(pid); err == nil {
			all[pid] = s
		}
	}
	own := map[int]stat{}
	for pid, s := range all {
		ancestor := s.parent
		for range len(all) {
			if ancestor == c.state.Holder.PID {
				own[pid] = s
				break
			}
			ancestor = all[ancestor].parent
		}
	}
	return own, nil
}

// namespacedNumbers returns a process's number in each pid namespace from that of /proc inwards
// (NSpid in proc_pid_status(5)).
func namespacedNumbers(pid int) []int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, "NSpid:")
		if !ok {
			continue
		}
		var numbers []int
		for field := range strings.FieldsSeq(rest) {
			number, err := strconv.Atoi(field)
			if err != nil {
				return nil
			}
			numbers = append(numbers, number)
		}
		return numbers
	}
	return nil
}

// HostPID returns the machine's number of the process that has the given number on the node, which is the
// one that containerd reports; 0 if there is none.
func (c *Cluster) HostPID(onNode int) (int, error) {
	pids, err := c.onNode()
	if err != nil {
		return 0, err
	}
	for pid := range pids {
		// The machine's, the node's, and a container's own if it has one.
		if numbers := namespacedNumbers(pid); len(numbers) > 1 && numbers[1] == onNode {
			return pid, nil
		}
	}
	return 0, nil
}
