package testnode

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// marker is in the environment of containerd and of the shims that it starts.
func (n *Node) marker() string { return "TESTNODE=" + n.Dir }

type process struct {
	pid, parent int
	name        string
	state       string
	ours        bool
}

func (p process) String() string {
	return fmt.Sprintf("process %d (%s, state %s)", p.pid, p.name, p.state)
}

// processes returns the processes that belong to the node, without containerd itself. A process belongs
// to the node if its environment contains the marker, its command line names the node's folder or
// namespace, its cgroup lies below the namespace's, or its parent belongs to the node. Each of these
// can be missing: shims leave their parents, workers have an empty environment.
func (n *Node) processes() ([]process, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	all := map[int]process{}
	for _, folder := range folders {
		if p, ok := n.examine(folder); ok {
			all[p.pid] = p
		}
	}
	var own []process
	for pid, p := range all {
		if pid != n.PID() && n.descends(all, p) {
			own = append(own, p)
		}
	}
	return own, nil
}

func (n *Node) descends(all map[int]process, p process) bool {
	for range len(all) {
		if p.ours {
			return true
		}
		parent, ok := all[p.parent]
		if !ok {
			return false
		}
		p = parent
	}
	return false
}

// examine reads one process; it is not ok if the process ended meanwhile.
func (n *Node) examine(folder string) (process, bool) {
	pid, err := strconv.Atoi(filepath.Base(folder))
	if err != nil {
		return process{}, false
	}
	stat, err := os.ReadFile(filepath.Join(folder, "stat"))
	if err != nil {
		return process{}, false
	}
	// The name is in parentheses and may contain parentheses: proc_pid_stat(5).
	first, last := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[last+1:]))
	if first < 0 || len(fields) < 2 {
		return process{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return process{}, false
	}
	p := process{pid: pid, parent: parent, name: string(stat[first+1 : last]), state: fields[0]}
	// For a process that ends between two reads, later reads return less; the rest decides.
	environment, _ := os.ReadFile(filepath.Join(folder, "environ"))
	arguments, _ := os.ReadFile(filepath.Join(folder, "cmdline"))
	cgroups, _ := os.ReadFile(filepath.Join(folder, "cgroup"))
	// If the machine's first process reaps late or never, an orphan that has ended stays a zombie, even
	// in its cgroup (v2). Such a zombie counts only if its parent belongs to the node.
	ended := p.state == "Z" || p.state == "X"
	p.ours = pid == n.PID() && !n.daemon.gone() || !ended &&
		(bytes.Contains(environment, append([]byte(n.marker()), 0)) ||
			bytes.Contains(arguments, []byte(n.Namespace)) ||
			bytes.Contains(cgroups, []byte(n.Namespace)))
	return p, true
}
