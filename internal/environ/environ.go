// Package environ reads a container's environment as the process will see it: what runc makes of several
// variables of one name is written here once, for all that look at an environment before the process does.
package environ

import (
	"slices"
	"strings"
)

// Lookup returns the value of a variable, and reports whether it is set. Of several of one name the last
// counts, the one that runc leaves a process (libcontainer/env.go, prepareEnv).
func Lookup(env []string, name string) (string, bool) {
	for _, variable := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(variable, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// Get returns the value of a variable, empty if it is not set.
func Get(env []string, name string) string {
	value, _ := Lookup(env, name)
	return value
}
