package step

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo"
)

// Stage copies argoexec into the volume, for the native containers of the pod: the part of argoexec init that Init
// leaves out.
func Stage(p Pod) error {
	unix.Umask(0) // the other containers may have other users
	name, err := p.lookPath("argoexec")
	if err != nil {
		return err
	}
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	return volume{p.Root + argo.VolumePath}.replace("argoexec", 0o555, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
}

// lookPath finds a program of the container by PATH.
func (p Pod) lookPath(name string) (string, error) {
	for dir := range strings.SplitSeq(p.env("PATH"), ":") {
		path := p.Root + dir + "/" + name
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("exec: %q: %w", name, exec.ErrNotFound)
}
