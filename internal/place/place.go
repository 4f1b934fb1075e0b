// Package place compares paths of a container over which something is mounted. It reads no file system.
package place

import "strings"

// Nested reports whether two clean absolute paths are the same, or one leads below the other.
func Nested(a, b string) bool {
	a, b = strings.TrimRight(a, "/")+"/", strings.TrimRight(b, "/")+"/"
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

// system are the paths below which the kernel, the kubelet and Argo mount files of their own.
var system = []string{"/proc", "/sys", "/dev", "/run", "/var/run", "/argo", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}

// OfSystem returns a path that the system mounts itself at, above or below a clean absolute path, and reports whether there
// is one.
func OfSystem(at string) (string, bool) {
	for _, p := range system {
		if Nested(at, p) {
			return p, true
		}
	}
	return "", false
}
