package cgroup

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pidsRoom returns how many more processes and threads the limits of the cgroup and of those above it allow,
// and the path of the cgroup that allows the fewest. Without any limit, room is math.MaxInt
// (https://docs.kernel.org/admin-guide/cgroup-v2.html#pid).
func (c *Cgroup) pidsRoom() (room int, where string) {
	room = math.MaxInt
	path := c.Paths()["pids"]
	if c.unified {
		path = c.Paths()[""]
	}
	for ; path != "" && path != "." && path != "/"; path = filepath.Dir(path) {
		most, limited := number(filepath.Join(path, "pids.max"))
		current, counted := number(filepath.Join(path, "pids.current"))
		if limited && counted && most-current < room {
			room, where = most-current, path
		}
	}
	return room, where
}

// number reads a number from a file; false if the file has none, such as "max".
func number(path string) (int, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return n, err == nil
}

// CheckRoom returns an error if the limits allow fewer than least more processes and threads.
func (c *Cgroup) CheckRoom(least int) error {
	room, where := c.pidsRoom()
	if room >= least {
		return nil
	}
	return fmt.Errorf("the limit of processes and threads in %s leaves room for %d, of which %d is the least", where, room, least)
}
