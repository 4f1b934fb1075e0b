package testcluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/leaks"
)

// leaksWithin bounds the wait for what kubelet, containerd and shims clean up after a pod has gone. The kubelet looks
// for dead sandboxes once a minute, and a busy machine is slow.
const leaksWithin = 5 * time.Minute

// Snapshot is the traces of pods on the node at one moment, one line for each: processes, mounts, cgroups, network
// namespaces, volumes, and files of containerd, runc and the shims.
type Snapshot = leaks.Snapshot

// shimFolders are where shims keep files for each task or pod.
var shimFolders = []string{
	"/run/containerd/io.containerd.runtime.v2.task/" + containerdNamespace,
	"/run/containerd/s",
	"/run/containerd/runc/" + containerdNamespace,
	"/run/containerd-shim-wasm/s",
	"/run/netns",
	"/var/lib/containerd/io.containerd.runtime.v2.task/" + containerdNamespace,
	"/var/lib/kubelet/pods",
	"/var/log/pods",
}

// Snapshot looks at the node now. The parts of the cluster themselves are left out: they may be restarted.
func (c *Cluster) Snapshot() (Snapshot, error) {
	seen := Snapshot{}
	return seen, errors.Join(c.seeProcesses(seen), c.seeMounts(seen), c.seeCgroups(seen), c.seeFiles(seen))
}

// Leaks returns the things that exist now and did not before, sorted. It looks again until nothing is left or a bounded
// time has passed, because much is cleaned up some time after a pod has gone.
func (c *Cluster) Leaks(ctx context.Context, before Snapshot) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, leaksWithin)
	defer cancel()
	return leaks.Wait(ctx, before, c.Snapshot)
}

func (c *Cluster) seeProcesses(seen Snapshot) error {
	all, err := c.onNode()
	if err != nil {
		return err
	}
	parts := map[int]bool{}
	for _, p := range c.parts() {
		parts[c.process(p.name).PID] = true
	}
	for pid, s := range all {
		if !parts[pid] {
			seen.Add("process %d (%s)", pid, s.name)
		}
	}
	return nil
}

// seeMounts notes the mounts of the node itself; those of containers end with their processes.
func (c *Cluster) seeMounts(seen Snapshot) error {
	file, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", c.state.Holder.PID))
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// proc_pid_mountinfo(5): the fifth field is the mount point.
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			seen.Add("mount %s", fields[4])
		}
	}
	return lines.Err()
}

func (c *Cluster) seeCgroups(seen Snapshot) error {
	cgroups, err := c.cgroups()
	for _, cgroup := range cgroups {
		// The cgroups of the pod classes are created with the first pod of a class and stay.
		if strings.Contains(cgroup, "/pod") {
			seen.Add("cgroup %s", cgroup)
		}
	}
	return err
}

func (c *Cluster) seeFiles(seen Snapshot) error {
	for _, dir := range shimFolders {
		entries, err := os.ReadDir(c.OnNode(dir))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, entry := range entries {
			seen.Add("file %s", filepath.Join(dir, entry.Name()))
		}
	}
	return nil
}

// ShimPIDs returns the process ids, on the machine, of the shims that serve a container or sandbox. A pod with Wasm
// and native containers has two: ours and the stock one. The id may be the beginning of one.
func (c *Cluster) ShimPIDs(id string) ([]int, error) {
	all, err := c.onNode()
	if err != nil {
		return nil, err
	}
	var found []int
	for pid := range all {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(text), "\x00")
		if !strings.HasPrefix(filepath.Base(args[0]), "containerd-shim-") {
			continue
		}
		if at := slices.Index(args, "-id"); at >= 0 && at+1 < len(args) && strings.HasPrefix(args[at+1], id) {
			found = append(found, pid)
		}
	}
	slices.Sort(found)
	return found, nil
}

// PIDs returns the process ids, on the machine, of the node's processes whose name (proc_pid_comm(5)) begins so.
func (c *Cluster) PIDs(name string) ([]int, error) {
	all, err := c.onNode()
	if err != nil {
		return nil, err
	}
	var found []int
	for pid, s := range all {
		if strings.HasPrefix(s.name, name) {
			found = append(found, pid)
		}
	}
	slices.Sort(found)
	return found, nil
}
