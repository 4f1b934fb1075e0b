package testcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// What CPU names beside the parts of the cluster.
const (
	ArgoController = "argo's controllers"
	Containers     = "containers" // processes in pods' cgroups, without Argo's controllers
	Shims          = "shims"      // and what they start outside of pods' cgroups, such as runc
)

// clockTick is the unit of processor times in /proc: USER_HZ is 100 on each architecture that Go runs on (times(2)).
const clockTick = time.Second / 100

// CPU returns the processor time that each part of the node has taken since it runs, with that of its children that
// have ended: containerd's are the shims' start and delete verbs and the network plugins.
func (c *Cluster) CPU() (map[string]time.Duration, error) {
	own, err := c.onNode()
	if err != nil {
		return nil, err
	}
	// The times of processes that ended as orphans went to the node's first process.
	if own[c.state.Holder.PID], err = readStat(c.state.Holder.PID); err != nil {
		return nil, err
	}
	parts := map[int]string{}
	for _, p := range c.parts() {
		parts[c.process(p.name).PID] = p.name
	}
	took := map[string]time.Duration{}
	for pid, s := range own {
		switch name, isPart := parts[pid]; {
		case isPart:
			took[name] += s.cpu
		case s.name == "workflow-contro": // proc_pid_comm(5) has 15 characters
			took[ArgoController] += s.cpu
		default:
			took[Shims] += s.cpu
		}
	}
	inPods, err := c.podsCPU()
	if err != nil {
		return nil, err
	}
	// A process that has ended is in its parent's time and in that of its cgroup.
	took[Containers] = inPods - took[ArgoController]
	took[Shims] -= took[Containers]
	return took, nil
}

// podsCPU returns the processor time that was taken in the cgroups of pods, those that are gone included.
func (c *Cluster) podsCPU() (time.Duration, error) {
	usage, err := os.ReadFile(filepath.Join(cgroupRoot, "cpuacct", c.cgroup(), "cpuacct.usage"))
	if err == nil {
		nanoseconds, err := strconv.ParseInt(strings.TrimSpace(string(usage)), 10, 64)
		return time.Duration(nanoseconds), err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	text, err := os.ReadFile(filepath.Join(cgroupRoot, c.cgroup(), "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "usage_usec "); ok {
			microseconds, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return time.Duration(microseconds) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("cpu.stat of %s has no usage", c.cgroup())
}
