package testnode

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/leaks"
)

// leaksWithin bounds the wait for what containerd and shims clean up after their last reply. The process
// that copies compiled code to containerd has a low priority: on a busy machine it is slow.
const leaksWithin = 2 * time.Minute

// bundles is the folder in which containerd's runtime plugin keeps bundles, below its state, and their
// work folders, below its root.
const bundles = "io.containerd.runtime.v2.task"

// Folders outside of the node's own that shims keep files in: the stock shim's sockets and runc's
// state (containerd's pkg/shim and pkg/process), and our shim's.
const (
	stockSockets = "/run/containerd/s"
	runcState    = "/run/containerd/runc"
	shimState    = "/run/containerd-shim-wasm"
)

// Snapshot is the traces of a node's tasks on the machine at one moment, one line for each: processes,
// mounts, cgroups, network namespaces, sockets, bundles and files of the shims.
type Snapshot = leaks.Snapshot

// Snapshot looks at the machine now. It leaves out what belongs to other nodes. It includes files below
// the shims' folders that cannot be attributed to a node.
func (n *Node) Snapshot() (Snapshot, error) {
	seen := Snapshot{}
	var failures []error
	for _, look := range []func(Snapshot) error{
		n.seeProcesses, n.seeMounts, n.seeCgroups, n.seeBundles, n.seeShimFiles,
	} {
		failures = append(failures, look(seen))
	}
	return seen, errors.Join(failures...)
}

// Leaks returns the things that exist now and did not before, sorted. Containerd and shims clean up after
// their reply, so Leaks looks again until nothing is left or a bounded time has passed.
func (n *Node) Leaks(before Snapshot) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), leaksWithin)
	defer cancel()
	return leaks.Wait(ctx, before, n.Snapshot)
}

// seeProcesses notes processes and the network namespaces that they hold.
func (n *Node) seeProcesses(seen Snapshot) error {
	own, err := n.processes()
	if err != nil {
		return err
	}
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	for _, p := range own {
		seen.Add("%v", p)
		if namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.pid)); err == nil && namespace != host {
			seen.Add("network namespace %s", namespace)
		}
	}
	return nil
}

// seeMounts notes mounts below the node's folder, those that hold network namespaces included.
func (n *Node) seeMounts(seen Snapshot) error {
	points, err := n.mounts()
	for _, point := range points {
		seen.Add("mount %s", point)
	}
	return err
}

// mounts returns the mount points that name the node, in the order of mounting. It looks at every mount
// of the test's own mount namespace: the shims' private mounts end with their processes.
func (n *Node) mounts() ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var points []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// proc_pid_mountinfo(5): the fifth field is the mount point.
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.Contains(lines.Text(), n.Namespace) {
			points = append(points, fields[4])
		}
	}
	return points, lines.Err()
}

// seeCgroups notes cgroups at and below those named like the namespace: containerd's default path for a
// container is /NAMESPACE/ID. The parent stays when its last child is removed, with runc as well.
func (n *Node) seeCgroups(seen Snapshot) error {
	cgroups, err := n.cgroups()
	for _, cgroup := range cgroups {
		if filepath.Base(cgroup) != n.Namespace {
			seen.Add("cgroup %s", cgroup)
		}
	}
	return err
}

// cgroups returns the node's cgroups, parents before children.
func (n *Node) cgroups() ([]string, error) {
	var found []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		// Other processes make and remove cgroups during the walk.
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() && strings.Contains(path, n.Namespace) {
			found = append(found, path)
		}
		return err
	})
	return found, err
}

func (n *Node) seeBundles(seen Snapshot) error {
	for _, pattern := range []string{
		filepath.Join(n.State(), bundles, "*", "*"),
		filepath.Join(n.Root(), bundles, "*", "*"),
		filepath.Join(runcState, n.Namespace, "*"),
		filepath.Join(n.State(), "netns", "*"),
	} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range paths {
			seen.Add("bundle or state %s", path)
		}
	}
	return nil
}

// seeShimFiles notes sockets and other files of shims, except those that are known to be of another node:
// by its name in their path, or because their listener is no process of this node.
func (n *Node) seeShimFiles(seen Snapshot) error {
	_, others, err := n.listeners()
	if err != nil {
		return err
	}
	for _, dir := range []string{stockSockets, shimState} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			// The folders are made once and stay.
			ofAnother := strings.Contains(path, "/tn-") && !strings.Contains(path, n.Namespace)
			if !entry.IsDir() && !ofAnother && !others[path] {
				seen.Add("shim file %s (%v)", path, entry.Type())
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// listeners returns the paths of the unix sockets that the node's processes listen on, and of all others.
func (n *Node) listeners() (own, others map[string]bool, err error) {
	processes, err := n.processes()
	if err != nil {
		return nil, nil, err
	}
	held := map[string]bool{} // inodes of sockets
	for _, p := range processes {
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.pid))
		if err != nil {
			return nil, nil, err
		}
		for _, link := range links {
			if target, err := os.Readlink(link); err == nil {
				if inode, ok := strings.CutPrefix(target, "socket:["); ok {
					held[strings.TrimSuffix(inode, "]")] = true
				}
			}
		}
	}
	own, others = map[string]bool{}, map[string]bool{}
	tables, err := socketTables()
	if err != nil {
		return nil, nil, err
	}
	for line := range strings.Lines(tables) {
		// Num RefCount Protocol Flags Type St Inode Path; flag 0x10000 says that it listens.
		f := strings.Fields(line)
		if len(f) != 8 || f[3] != "00010000" {
			continue
		}
		if held[f[6]] {
			own[f[7]] = true
		} else {
			others[f[7]] = true
		}
	}
	return own, others, nil
}

// socketTables returns the unix sockets of every network namespace that a process is in.
// /proc/PID/net/unix lists those of one namespace.
func socketTables() (string, error) {
	spaces, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return "", err
	}
	seen := map[string]bool{}
	var tables strings.Builder
	for _, space := range spaces {
		name, err := os.Readlink(space)
		if err != nil || seen[name] {
			continue // the process has ended meanwhile
		}
		table, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(space)), "net/unix"))
		if err == nil {
			seen[name] = true
			tables.Write(table)
		}
	}
	return tables.String(), nil
}
