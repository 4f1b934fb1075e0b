package doctor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The controllers that enforce limits of containers, and on version 1 the one that
// pauses them.
var (
	controllers1 = []string{"cpu", "freezer", "memory", "pids"}
	controllers2 = []string{"cpu", "memory", "pids"}
)

func checkCgroups(_ context.Context, n *node) Result {
	const mount = "/sys/fs/cgroup"
	if text, err := n.read(mount + "/cgroup.controllers"); err == nil {
		return controllers("version 2", controllers2, strings.Fields(text), "add cgroup_enable=NAME to the kernel's command line")
	}
	entries, err := os.ReadDir(n.path(mount))
	if err != nil || len(entries) == 0 {
		return wrong("no cgroups at "+mount, "mount them: mount -t cgroup2 none "+mount)
	}
	var have []string
	for _, e := range entries {
		// One hierarchy may hold several controllers, as in "cpu,cpuacct".
		if _, err := os.Stat(filepath.Join(n.path(mount), e.Name(), "cgroup.procs")); err == nil {
			have = append(have, strings.Split(e.Name(), ",")...)
		}
	}
	version := "version 1"
	if slices.Contains(have, "unified") {
		version = "version 1, and 2 beside it (hybrid)"
	}
	return controllers(version, controllers1, have, "mount -t cgroup -o NAME NAME "+mount+"/NAME")
}

// controllers compares those that are needed with those that are there.
func controllers(version string, needed, have []string, mend string) Result {
	var missing []string
	for _, name := range needed {
		if !slices.Contains(have, name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return wrong(version+", without "+strings.Join(missing, ", "), mend)
	}
	return ok(version + ": " + strings.Join(needed, ", "))
}
