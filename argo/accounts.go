package argo

import (
	"bufio"
	"bytes"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
)

// accounts are the names of a container's users and groups by their ids.
type accounts struct{ users, groups map[uint32]string }

// maxAccounts bounds /etc/passwd and /etc/group, in bytes.
const maxAccounts = 4 << 20

// readAccounts reads a container's own files. Without them there are no names.
func readAccounts(root *tree) accounts {
	return accounts{
		users:  readNames(root, "/etc/passwd", 7),
		groups: readNames(root, "/etc/group", 4),
	}
}

// readNames reads names and ids from a file of passwd(5) or group(5), leaving out the
// lines that package os/user leaves out, which upstream's archives take names
// from.
func readNames(root *tree, file string, fields int) map[uint32]string {
	data, err := root.read(file, maxAccounts)
	if err != nil {
		return nil
	}
	names := make(map[uint32]string)
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxAccounts)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		parts := strings.SplitN(line, ":", fields)
		if len(parts) < fields || parts[0] == "" || strings.ContainsRune("#+-", rune(parts[0][0])) {
			continue
		}
		id, err := strconv.ParseUint(parts[2], 10, 32)
		if err != nil {
			continue
		}
		if _, known := names[uint32(id)]; !known {
			names[uint32(id)] = parts[0]
		}
	}
	return names
}

// owned gives package tar the names of a file's owner, as the container has them.
type owned struct {
	fs.FileInfo
	accounts accounts
}

func (o owned) Uname() (string, error) {
	if stat, ok := o.Sys().(*syscall.Stat_t); ok {
		return o.accounts.users[stat.Uid], nil
	}
	return "", nil
}

func (o owned) Gname() (string, error) {
	if stat, ok := o.Sys().(*syscall.Stat_t); ok {
		return o.accounts.groups[stat.Gid], nil
	}
	return "", nil
}
