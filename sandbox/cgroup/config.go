package cgroup

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// configure returns the cgroup that spec asks for: its path from
// linux.cgroupsPath, its limits from linux.resources. systemd is true if systemd
// manages the node's cgroups (the option SystemdCgroup of containerd's runtimes).
//
// cgroupsPath is a path below the cgroup mounts, or "slice:prefix:name" with
// systemd, as for runc. If it is empty, the cgroup gets its name from the container:
// id, below the caller's own cgroup, or "runc-ID.scope" in system.slice.
//
// An error names the field that is wrong, or that this node's hierarchy (v1 or
// v2) does not support.
func configure(id string, spec *specs.Spec, systemd bool) (*cgroups.Cgroup, error) {
	config, err := located(id, spec, systemd)
	if err != nil {
		return nil, err
	}
	var given *specs.LinuxResources
	if spec.Linux != nil {
		given = spec.Linux.Resources
	}
	config.Resources, err = resources(given, cgroups.IsCgroup2UnifiedMode())
	if err != nil {
		return nil, err
	}
	if err := checkSwap(config.Resources); err != nil {
		return nil, err
	}
	config.Resources.Devices = append(config.Resources.Devices, defaultDevices(spec)...)
	return config, nil
}

// located returns the cgroup at its path, without limits.
func located(id string, spec *specs.Spec, systemd bool) (*cgroups.Cgroup, error) {
	var path string
	if spec.Linux != nil {
		path = spec.Linux.CgroupsPath
	}
	config := &cgroups.Cgroup{Systemd: systemd, Resources: &cgroups.Resources{}}
	switch {
	case path == "" && (id == "" || strings.Contains(id, "/")):
		return nil, fmt.Errorf("linux.cgroupsPath is empty, and %q cannot name a cgroup", id)
	case path == "" && systemd:
		config.ScopePrefix, config.Name = "runc", id
	case path == "":
		config.Name = id
	case systemd:
		return config, setUnit(config, path)
	default:
		return config, setPath(config, path)
	}
	return config, nil
}

// setPath sets the path from a path of the cgroup file system. It refuses a path
// to the root: Kill would kill the node's own processes there.
func setPath(config *cgroups.Cgroup, path string) error {
	clean := filepath.Clean("/" + path)
	if clean == "/" {
		return fmt.Errorf("linux.cgroupsPath %q is the root of all cgroups", path)
	}
	if !filepath.IsAbs(path) {
		clean = clean[1:]
	}
	config.Path = clean
	return nil
}

func setUnit(config *cgroups.Cgroup, path string) error {
	parts := strings.Split(path, ":")
	if len(parts) != 3 {
		return fmt.Errorf("linux.cgroupsPath %q: systemd needs the form slice:prefix:name", path)
	}
	if parts[2] == "" || strings.ContainsAny(path, "/") {
		return fmt.Errorf("linux.cgroupsPath %q: the name must not be empty, and no part may have a slash", path)
	}
	config.Parent, config.ScopePrefix, config.Name = parts[0], parts[1], parts[2]
	return nil
}
