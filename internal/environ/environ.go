// Package environ reads a container's environment as its process will see it. Several variables may have
// one name; runc's rule for them is implemented once, here, for all code that reads an environment before
// the process does.
package environ

import (
	"slices"
	"strings"
)

// Lookup returns the value of a variable, and reports whether it is set. If several have that name, the
// last one counts: runc leaves only that one to a process (libcontainer/env.go, prepareEnv).
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

// Unique returns the environment that runc leaves a process: of several variables of one name the last, in its place.
func Unique(env []string) []string {
	seen := map[string]bool{}
	var left []string
	for _, variable := range slices.Backward(env) {
		name, _, _ := strings.Cut(variable, "=")
		if !seen[name] {
			seen[name] = true
			left = append(left, variable)
		}
	}
	slices.Reverse(left)
	return left
}
