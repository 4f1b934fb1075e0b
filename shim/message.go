package shim

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// messagePath is where the kubelet mounts the file from which it takes a container's termination message, unless
// terminationMessagePath says otherwise.
const messagePath = "/dev/termination-log"

// leaveMessage appends a line to the container's termination message, where the kubelet has made a file for that.
func leaveMessage(spec *specs.Spec, line string) error {
	i := slices.IndexFunc(spec.Mounts, isMessage)
	if i < 0 {
		return nil
	}
	// The guest may write the file, and cannot exchange it: it sees nothing of the folder.
	f, err := os.OpenFile(spec.Mounts[i].Source, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &os.PathError{Op: "write", Path: f.Name(), Err: errors.New("it is not a regular file")}
	}
	if info.Size() > 0 {
		line = "\n" + line
	}
	_, err = fmt.Fprint(f, line)
	return err
}

// isMessage reports whether a mount is the kubelet's own file, pods/UID/containers/NAME/FILE of its folder. A volume of the
// pod is never there.
func isMessage(m specs.Mount) bool {
	parts := strings.Split(filepath.Clean(m.Source), "/")
	n := len(parts)
	return path.Clean(m.Destination) == messagePath && n > 5 && parts[n-5] == "pods" && parts[n-3] == "containers" && !slices.Contains(m.Options, "ro")
}
