package argo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// stagedArtifacts is where Argo 4.1's supervisor puts input artifacts.
const stagedArtifacts = "/argo/inputs/artifacts"

// stage puts links to the input artifacts at their paths in the container, when
// Argo could not mount them there because its supervisor runs beside the main container
// and not before it. Upstream's links are absolute; these are relative, because
// a Wasm guest cannot follow absolute ones out of the directory it is given.
func (r *run) stage() error {
	if !r.hasSupervisor() || r.container != mainContainer {
		return nil
	}
	root, err := os.OpenRoot(r.Root)
	if err != nil {
		return r.notReady(err)
	}
	defer root.Close()
	for _, artifact := range r.template.Inputs.Artifacts {
		if err := r.stageArtifact(root, artifact); err != nil {
			return r.notReady(fmt.Errorf("stage input artifact %q at %s: %w", artifact.Name, artifact.Path, err))
		}
	}
	info, err := r.root.stat(r.absolute("."), 0)
	if err == nil && !info.IsDir() {
		return r.notReady(fmt.Errorf("the working directory %s is no directory once the input artifacts are staged", r.Dir))
	}
	return nil
}

func (r *run) stageArtifact(root *os.Root, a artifact) error {
	if err := checkName(a.Name); err != nil {
		return err
	}
	source := path.Join(stagedArtifacts, a.Name)
	if _, err := r.root.stat(source, unix.O_NOFOLLOW); errors.Is(err, fs.ErrNotExist) {
		r.log.Info("no such input artifact: it is optional, or lies on a volume", "name", a.Name, "path", a.Path)
		return nil
	}
	if a.Path == "" {
		return nil
	}
	at := r.absolute(a.Path)
	dir, err := physical(root, path.Dir(at))
	if err != nil {
		return err
	}
	if err := root.MkdirAll(orDot(dir), 0o755); err != nil {
		return err
	}
	at = path.Join("/", dir, path.Base(at))
	if err := r.clear(root, at); err != nil {
		return err
	}
	target, err := filepath.Rel(path.Dir(at), source)
	if err != nil {
		return err
	}
	return root.Symlink(target, relative(at))
}

// clear removes a file of the image at a path, unless a volume lies there.
func (r *run) clear(root *os.Root, at string) error {
	if _, err := root.Lstat(orDot(relative(at))); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if at == "/" || r.template.inVolume(at) || r.template.aboveVolume(at) {
		return fmt.Errorf("it would replace what is on a volume, at %s: choose another path", at)
	}
	return root.RemoveAll(relative(at))
}

// maxLinks is how many links the kernel follows in a path, see path_resolution(7).
const maxLinks = 40

// physical resolves a path below root, without links and without a leading "/". The path need
// not exist.
func physical(root *os.Root, name string) (string, error) {
	at, rest, links := "", relative(name), 0
	for rest != "" {
		var next string
		next, rest, _ = strings.Cut(rest, "/")
		if next == ".." || next == "." || next == "" {
			at = relative(path.Join(at, next))
			continue
		}
		target, err := root.Readlink(path.Join(at, next))
		if err != nil { // no link, or nothing there
			at = path.Join(at, next)
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: too many links", name)
		}
		if path.IsAbs(target) {
			at = ""
		}
		rest = strings.TrimPrefix(target+"/"+rest, "/")
	}
	return at, nil
}

func orDot(name string) string {
	if name == "" {
		return "."
	}
	return name
}
