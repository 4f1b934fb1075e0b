package testcluster

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchies returns the folders in which cgroups are made: the unified hierarchy, or every
// one of cgroup v1.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot}, nil
	}
	found, err := filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	dirs := map[string]bool{}
	for _, file := range found {
		// cpu and cpuacct may be links to one hierarchy.
		dir, err := filepath.EvalSymlinks(filepath.Dir(file))
		if err != nil {
			return nil, err
		}
		dirs[dir] = true
	}
	return slices.Sorted(maps.Keys(dirs)), nil
}

// makeCgroup makes the cgroup in which the kubelet makes those of the pods.
func (c *Cluster) makeCgroup() error {
	parents, err := hierarchies()
	if err != nil {
		return err
	}
	for _, parent := range parents {
		dir := filepath.Join(parent, c.cgroup())
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		// A new cpuset of cgroup v1 has no processors and no memory nodes: no process can join
		// it.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if err := copyWhereEmpty(filepath.Join(parent, file), filepath.Join(dir, file)); err != nil {
				return err
			}
		}
	}
	return nil
}

func copyWhereEmpty(from, to string) error {
	value, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if now, err := os.ReadFile(to); err != nil || len(bytes.TrimSpace(now)) > 0 {
		return err
	}
	return os.WriteFile(to, bytes.TrimSpace(value), 0o644)
}

// cgroups returns the cluster's cgroups, parents before children.
func (c *Cluster) cgroups() ([]string, error) {
	parents, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, parent := range parents {
		err := filepath.WalkDir(filepath.Join(parent, c.cgroup()), func(path string, entry fs.DirEntry, err error) error {
			// Cgroups come and go during the walk.
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && entry.IsDir() {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// thaw ends the pause of every paused container (cgroup v1's freezer and v2).
func (c *Cluster) thaw() error {
	cgroups, err := c.cgroups()
	if err != nil {
		return err
	}
	for _, cgroup := range cgroups {
		for file, value := range map[string]string{"freezer.state": "THAWED", "cgroup.freeze": "0"} {
			path := filepath.Join(cgroup, file)
			if _, err := os.Stat(path); err != nil {
				continue
			}
			err := os.WriteFile(path, []byte(value), 0)
			// The cgroup went away meanwhile.
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
				return err
			}
		}
	}
	return nil
}
