package testcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
)

// standIns are the machine's folders that the node replaces with its own. So every file has the same path
// as on any node, and the machine's folders do not change.
var standIns = []string{"/etc", "/var", "/usr/local/bin"}

// fromEtc are the files of the machine's /etc that programs on the node need.
var fromEtc = []string{"passwd", "group", "nsswitch.conf", "ld.so.cache", "ld.so.conf", "localtime"}

// startHolder makes the node: a process that holds its namespaces and, as their init, collects orphans. It
// does nothing else. When it dies, the kernel kills everything on the node and removes its network and
// mounts.
func (c *Cluster) startHolder(ctx context.Context) error {
	if err := c.writeFolders(); err != nil {
		return err
	}
	pause, err := testguest.File("pause")
	if err != nil {
		return err
	}
	holder := exec.Command(pause)
	holder.Args[0] = c.cgroup() // what ps shows
	holder.Dir = "/"
	holder.Env = []string{}
	holder.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS,
	}
	if err := holder.Start(); err != nil {
		return err
	}
	go func() { _ = holder.Wait() }() // it must not stay as a zombie while this program lives
	if c.state.Holder, err = identify(holder.Process.Pid); err != nil {
		return err
	}
	if err := c.save(); err != nil {
		return err
	}
	return errors.Join(c.furnish(ctx), c.connect(ctx), c.makeCgroup())
}

// writeFolders fills the node's own folders.
func (c *Cluster) writeFolders() error {
	for _, dir := range []string{
		"etc/cni/net.d", "etc/containerd", "etc/kubernetes",
		"var/lib", "var/log", "var/tmp", "var/cache", "usr/local/bin",
	} {
		if err := os.MkdirAll(filepath.Join(c.node(), dir), 0o755); err != nil {
			return err
		}
	}
	for _, name := range fromEtc {
		text, err := os.ReadFile(filepath.Join("/etc", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(c.node(), "etc", name), text, 0o644)
		}
		if err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"hostname":    nodeName + "\n",
		"hosts":       fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", nodeIP, nodeName),
		"resolv.conf": "nameserver 127.0.0.1\n", // nothing listens there, so requests fail at once
	} {
		if err := os.WriteFile(filepath.Join(c.node(), "etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	// A copy, because runc starts itself from an overlay of its folder, which shows no mounts.
	runc, err := os.ReadFile(c.tool("runc", "runc"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.node(), "usr/local/bin/runc"), runc, 0o755); err != nil {
		return err
	}
	return os.Symlink("/run", filepath.Join(c.node(), "var/run"))
}

// furnish mounts the node's own folders over the machine's, in its mount namespace only.
func (c *Cluster) furnish(ctx context.Context) error {
	// Mounts do not propagate between the machine and the node, but they do between the node and its containers.
	err := c.enter([]string{"mnt"}, func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		return c.coverFolders()
	})
	if err != nil {
		return err
	}
	// A proc file system shows the pid namespace of the process that mounts it.
	command := c.NodeCommand(ctx, "/bin/mount", "--no-mtab", "-t", "proc", "proc", "/proc")
	if err := c.output(command); err != nil {
		return err
	}
	return c.enter([]string{"uts", "mnt"}, func() error {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
			return fmt.Errorf("share mounts: %w", err)
		}
		return unix.Sethostname([]byte(nodeName))
	})
}

// coverFolders opens every source first: the source tree itself may lie below a covered folder.
func (c *Cluster) coverFolders() error {
	over := map[string]string{}
	for _, dir := range standIns {
		over[dir] = filepath.Join(c.node(), dir)
	}
	for path, source := range c.binaries() {
		over[path] = source
	}
	if slices.ContainsFunc(append(standIns, "/run"), func(dir string) bool { return strings.HasPrefix(c.repo, dir+"/") }) {
		over[c.repo] = c.repo
	}
	trees := map[string]int{}
	defer func() {
		for _, fd := range trees {
			_ = unix.Close(fd)
		}
	}()
	for target, source := range over {
		fd, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return &fs.PathError{Op: "open_tree", Path: source, Err: err}
		}
		trees[target] = fd
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return &fs.PathError{Op: "mount", Path: "/run", Err: err}
	}
	if err := os.MkdirAll("/run/lock", 0o755); err != nil {
		return err
	}
	// Folders come before their contents.
	for _, target := range slices.SortedFunc(maps.Keys(over), func(a, b string) int { return len(a) - len(b) }) {
		if err := attach(trees[target], target, over[target]); err != nil {
			return err
		}
	}
	return nil
}

func attach(tree int, target, source string) error {
	if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
		if err := makeLike(tree, target); err != nil {
			return err
		}
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}

// makeLike makes a folder or an empty file to mount on.
func makeLike(tree int, target string) error {
	var info unix.Stat_t
	if err := unix.Fstat(tree, &info); err != nil {
		return err
	}
	if info.Mode&unix.S_IFMT == unix.S_IFDIR {
		return os.MkdirAll(target, 0o755)
	}
	file, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	return file.Close()
}

// connect gives the node its addresses. The node has no route to any other network.
func (c *Cluster) connect(ctx context.Context) error {
	for _, line := range []string{
		"link set lo up",
		"address add " + apiIP + "/32 dev lo",
		"link add node0 type bridge",
		"address add " + nodeIP + "/24 dev node0",
		"link set node0 up",
	} {
		if err := c.output(c.NodeCommand(ctx, "/sbin/ip", strings.Fields(line)...)); err != nil {
			return err
		}
	}
	return nil
}

// output runs a command on the node; the error has the command's output.
func (c *Cluster) output(command *exec.Cmd) error {
	var text strings.Builder
	if command.Stdout == nil {
		command.Stdout = &text
	}
	command.Stderr = &text
	if err := c.RunOnNode(command); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, strings.TrimSpace(text.String()))
	}
	return nil
}
