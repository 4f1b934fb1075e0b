package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"

	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// Warming says what to compile ahead of time: an image in a namespace of the
// containerd at Address, under the settings of a configuration file.
type Warming struct {
	Address, Namespace, Snapshotter, Image, Config string
}

// Warm compiles the modules of an image, unless they are in the cache, and gives the
// code to the image, as a container's daemon does. It returns a line for each. The
// image's entry point names the module in an image whose layers are files; other files
// are compiled when a container runs them.
func Warm(ctx context.Context, w Warming, programs Programs) ([]string, error) {
	n, err := w.node(programs)
	if err != nil {
		return nil, err
	}
	return n.warmImage(ctx, w)
}

// node returns what compiles ahead of time, in a process that is no daemon.
func (w Warming) node(programs Programs) (*node, error) {
	if err := os.MkdirAll(StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("create %s: %w", StateDir, err)
	}
	n := &node{flags: Flags{Namespace: w.Namespace, Address: w.Address}, stateDir: StateDir, log: logrus.NewEntry(logrus.StandardLogger()), programs: programs}
	n.log.Logger.SetLevel(logrus.WarnLevel)
	return n, nil
}

func (n *node) warmImage(ctx context.Context, w Warming) ([]string, error) {
	s, err := loadSettings(w.Config)
	if err != nil {
		return nil, err
	}
	found, err := n.find(ctx, w.Image)
	if err != nil {
		return nil, err
	}
	if len(found.Modules) == 0 {
		line, err := n.warmFile(ctx, w, s)
		if err != nil {
			return nil, err
		}
		return []string{line}, nil
	}
	var lines []string
	for _, layer := range found.Modules {
		from, err := openLayer(found, layer)
		if err != nil {
			return lines, err
		}
		line, err := n.warm(ctx, w, s, from, nil)
		from.close()
		if err != nil {
			return lines, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// warmFile compiles the file that the image's entry point names.
func (n *node) warmFile(ctx context.Context, w Warming, s settings) (_ string, err error) {
	view, done, err := n.view(w)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, done()) }()
	if len(view.Args) == 0 {
		return "", fmt.Errorf("%w: image %s has no entry point that would name a module", errNative, w.Image)
	}
	command, err := parseCommand(view.Args)
	if err != nil {
		return "", err
	}
	sb, err := sandbox.New(n.stateDir, "")
	if err != nil {
		return "", err
	}
	defer sb.Close()
	if err := sb.MountRootfs(view.Mounts, nil, ""); err != nil {
		return "", err
	}
	entry := command.entry()
	from, err := openFile(ctx, sb, view.Mounts, &specs.Process{Cwd: view.Cwd, Env: view.Env}, entry)
	if local := entry.Local(view.Cwd); local != "" && errors.Is(err, os.ErrNotExist) {
		from, err = openFileAt(sb, view.Mounts, local, entry)
	}
	if err != nil {
		return "", fmt.Errorf("image %s: %w", w.Image, err)
	}
	defer from.close()
	return n.warm(ctx, w, s, from, view.Mounts)
}

func (n *node) warm(ctx context.Context, w Warming, s settings, from source, rootfs []sandbox.Mount) (string, error) {
	engine, err := n.prepareEngine()
	if err != nil {
		return "", err
	}
	compiled, err := n.compiled(ctx, job{engine: engine, settings: s, from: from, begin: func(string) {}})
	if err != nil {
		return "", err
	}
	state := "was compiled already"
	if compiled.Compiled {
		state = "compiled"
	}
	if err := compiled.Close(); err != nil {
		return "", err
	}
	c := &container{node: n, spec: &specs.Spec{}, rootfs: rootfs}
	cmd, err := n.keepCommand(ctx, s, compiled.Digest, c.imageKey(from), "--image", w.Image)
	if err != nil {
		return "", err
	}
	cmd.Stdin = strings.NewReader("go\n")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("keep %s: %w: %s", from.file.Name(), err, bytes.TrimSpace(output))
	}
	return fmt.Sprintf("%s %s", from.file.Name(), state), nil
}

// view is what a container of an image would see and run.
type view struct {
	Mounts    []sandbox.Mount
	Args, Env []string
	Cwd       string
}

// view returns that of an image whose layers are files; done gives it up.
func (n *node) view(w Warming) (_ view, done func() error, err error) {
	cmd, err := n.imagesCommand(context.Background(), "view", "--image", w.Image, "--snapshotter", w.Snapshotter)
	if err != nil {
		return view{}, nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	hold, err := cmd.StdinPipe()
	if err != nil {
		return view{}, nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return view{}, nil, err
	}
	if err := cmd.Start(); err != nil {
		return view{}, nil, err
	}
	done = func() error {
		hold.Close()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("wasm-images view: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
		}
		return nil
	}
	var v view
	if err := json.NewDecoder(output).Decode(&v); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it says nothing of the image")
		}
		return view{}, nil, errors.Join(done(), err)
	}
	return v, done, nil
}
