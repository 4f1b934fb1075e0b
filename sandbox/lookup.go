package sandbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
)

// errNotInPath wraps os.ErrNotExist.
var errNotInPath = fmt.Errorf("not found in $PATH: %w", os.ErrNotExist)

// LookPath finds the file that an exec of a command in directory cwd with the given
// environment would run ([entrypoint.Point.Paths]): the path itself when there is only
// one, else the first that leads to a regular file. It returns an absolute path of the
// container. It looks at no further folder of $PATH once ctx has ended.
func (s *Sandbox) LookPath(ctx context.Context, command entrypoint.Point, cwd string, env []string) (string, error) {
	switch {
	case command.File == "":
		return "", fmt.Errorf("no command given: %w", os.ErrNotExist)
	case command.IsRoot():
		return "", &os.PathError{Op: "look for", Path: command.File, Err: fmt.Errorf("it is no file: %w", os.ErrNotExist)}
	}
	paths := command.Paths(cwd, env)
	if strings.Contains(command.File, "/") {
		return paths[0], nil
	}
	var found string
	err := s.thread.do(func() error {
		for _, candidate := range paths {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("look for %s in $PATH: %w", command.File, err)
			}
			if s.isFile(candidate) {
				found = candidate
				return nil
			}
		}
		return &os.PathError{Op: "look for", Path: command.File, Err: errNotInPath}
	})
	return found, err
}

// MountsDecide reports whether the specification's mounts affect the first of the paths that leads to a
// file: whether one of them lies at or above the file, or at or above something on the way
// there, such as a link of the image. It returns true if that takes more than maxSteps steps, or ctx ends. It
// only reads the root file system, before MountAll.
func (s *Sandbox) MountsDecide(ctx context.Context, spec *specs.Spec, paths []string) bool {
	decide := false
	_ = s.thread.do(func() error {
		passed := map[string]bool{}
		w := newWalk(s.root, func(place string) { passed[place] = true })
		for _, p := range paths {
			// An exec cannot follow this path either, unless a mount is on the way.
			_, _ = w.expand(p)
			if decide = w.isOver() || ctx.Err() != nil; decide {
				return nil
			}
			if len(paths) > 1 && s.isFile(p) {
				break
			}
		}
		decide = mountedAtAny(w, spec.Mounts, passed)
		return nil
	})
	return decide
}

func (s *Sandbox) isFile(at string) bool {
	fd, err := s.findFile(at)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// mountedAtAny reports whether one of the mounts would be made at one of the places that the walk has passed
// so far. It also returns true if the walk is over before that is known.
func mountedAtAny(w *walk, mounts []specs.Mount, passed map[string]bool) bool {
	places := maps.Clone(passed)
	binds := map[string]bool{} // those so far
	for _, m := range mounts {
		at := clean(m.Destination)
		if isBelowAny(at, binds) {
			return true // a link of the outer one may lead anywhere
		}
		if isBind(m) {
			binds[at] = true
		}
		if hasLinks(w.root, at) {
			names, err := w.expand(at)
			if w.isOver() {
				return true
			}
			if err != nil {
				continue // it cannot be made
			}
			at = "/" + strings.Join(names, "/")
		}
		if places[at] {
			return true
		}
	}
	return false
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// isBelowAny reports whether one of the folders is above a path.
func isBelowAny(at string, folders map[string]bool) bool {
	for at != "/" {
		if at = path.Dir(at); folders[at] {
			return true
		}
	}
	return false
}

// hasLinks reports whether there is a link on the way to a path, or at it.
func hasLinks(root int, at string) bool {
	fd, err := openHow(root, at, unix.O_PATH, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS)
	if err == nil {
		unix.Close(fd)
	}
	return errors.Is(err, unix.ELOOP)
}
