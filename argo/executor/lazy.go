package executor

import (
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/place"
)

// Lazy returns the input artifacts that need not be loaded before the main container starts: they can be mounted where
// it has them, and be read from the store when it reads them. It leaves out every artifact of which another container
// may see more than the main one: on a volume of the template, below another artifact, or at a path from which an output
// is collected. Init may load one of them nevertheless: a small one, or an archive of which it does not know what it
// becomes. If a container of the template has all mounts of the main one, no artifact is left.
func (t *Template) Lazy() []Artifact {
	if mirrored(t.Sidecars) || mirrored(t.InitContainers) || t.ContainerSet != nil {
		return nil
	}
	var lazy []Artifact
	for i, a := range t.InputArtifacts {
		if len(lazy) < mostLazy && t.isLazy(i) {
			a.Path = path.Clean(a.Path)
			lazy = append(lazy, a)
		}
	}
	return lazy
}

// mostLazy bounds the artifacts that are read later: each takes a descriptor and a connection.
const mostLazy = 64

// neighbour is a container that a template adds to the pod.
type neighbour struct {
	MirrorVolumeMounts *bool `json:"mirrorVolumeMounts"`
}

func mirrored(all []neighbour) bool {
	for _, n := range all {
		if n.MirrorVolumeMounts != nil && *n.MirrorVolumeMounts {
			return true
		}
	}
	return false
}

func (t *Template) isLazy(i int) bool {
	a := t.InputArtifacts[i]
	at := path.Clean(a.Path)
	if _, system := place.OfSystem(at); system || !a.Supplied() || t.OnVolume(at) {
		return false
	}
	whole, err := a.In(t.Archive)
	if err != nil || whole.S3 == nil {
		return false
	}
	for j, other := range t.InputArtifacts {
		if i != j && place.Nested(at, path.Clean(other.Path)) {
			return false
		}
	}
	return !t.collectsNear(at)
}

// collectsNear reports whether an output is at a path, below it, or above it.
func (t *Template) collectsNear(at string) bool {
	for _, o := range t.OutputArtifacts {
		if place.Nested(at, o.Path) {
			return true
		}
	}
	parameters, err := t.Outputs.Parameters()
	if err != nil {
		return true
	}
	for _, p := range parameters {
		if place.Nested(at, path.Clean(p.Path)) {
			return true
		}
	}
	return false
}

// IsLeft reports whether init has left an artifact to be read later: what is in its place is an empty file or folder. A
// descriptor of the place is enough that gives no right to read (O_PATH).
func IsLeft(place *os.File) (bool, error) {
	info, err := place.Stat()
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return info.Mode().IsRegular() && info.Size() == 0, nil
	}
	fd, err := unix.Openat(int(place.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: place.Name(), Err: err}
	}
	folder := os.NewFile(uintptr(fd), place.Name())
	defer folder.Close()
	names, _ := folder.Readdirnames(1)
	return len(names) == 0, nil
}
