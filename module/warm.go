package module

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
)

// Warming names the image to compile ahead of time: one that a snapshotter has unpacked, under the settings
// of a configuration file.
type Warming struct {
	Snapshotter, Image, Config string
}

// Warm compiles the modules of an image, unless they are in the cache, and gives the code to the image, as a
// container's daemon does. It returns a line for each module. In an image whose layers are files, the image's
// entry point names the module; other files are compiled when a container runs them.
func (l *Loader) Warm(ctx context.Context, w Warming) ([]string, error) {
	if err := os.MkdirAll(l.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("create %s: %w", l.StateDir, err)
	}
	settings, err := config.Load(w.Config)
	if err != nil {
		return nil, err
	}
	found, err := l.find(ctx, w.Image)
	if err != nil {
		return nil, err
	}
	warmer := warmer{loader: l, image: w, settings: settings}
	if len(found.Modules) > 0 {
		return warmer.layers(ctx, found)
	}
	line, err := warmer.file(ctx)
	if err != nil {
		return nil, err
	}
	return []string{line}, nil
}

// warmer compiles the modules of one image.
type warmer struct {
	loader   *Loader
	image    Warming
	settings config.Config
}

// layers compiles the modules that are layers.
func (w warmer) layers(ctx context.Context, found oci.Found) ([]string, error) {
	var lines []string
	for _, layer := range found.Modules {
		from, err := openLayer(found, layer)
		if err != nil {
			return lines, err
		}
		line, err := w.warm(ctx, from, nil)
		from.Close()
		if err != nil {
			return lines, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// file compiles the file that the image's entry point names.
func (w warmer) file(ctx context.Context) (_ string, err error) {
	view, done, err := w.view()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, done()) }()
	if len(view.Args) == 0 {
		return "", fmt.Errorf("%w: image %s has no entry point that would name a module", ErrNative, w.image.Image)
	}
	args, _, err := argo.Unwrap(view.Args)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNative, err)
	}
	sb, err := sandbox.New(w.loader.StateDir, "")
	if err != nil {
		return "", err
	}
	defer sb.Close()
	var rootfs []sandbox.Mount
	for _, m := range view.Mounts {
		rootfs = append(rootfs, sandbox.Mount(m))
	}
	if err := sb.MountRootfs(rootfs, nil, ""); err != nil {
		return "", err
	}
	point, files := entrypoint.Parse(args[0]), files{sb, rootfs}
	from, err := files.open(ctx, &specs.Process{Cwd: view.Cwd, Env: view.Env}, point)
	if local := point.Local(view.Cwd); local != "" && errors.Is(err, os.ErrNotExist) {
		from, err = files.openAt(local, point)
	}
	if err != nil {
		return "", fmt.Errorf("image %s: %w", w.image.Image, err)
	}
	defer from.Close()
	return w.warm(ctx, from, rootfs)
}

func (w warmer) warm(ctx context.Context, from Source, rootfs []sandbox.Mount) (string, error) {
	nobodys := w.loader.Container(About{Rootfs: rootfs})
	code, err := nobodys.Load(ctx, Request{Source: from, Settings: w.settings})
	if err != nil {
		return "", err
	}
	state := "was compiled already"
	if code.entry.Compiled {
		state = "compiled"
	}
	if err := code.Close(); err != nil {
		return "", err
	}
	keeper := &keeper{container: nobodys, settings: w.settings, from: from}
	cmd, err := keeper.command(ctx, code.entry.Digest, ask.Keep{Image: w.image.Image})
	if err != nil {
		return "", err
	}
	var input bytes.Buffer
	if err := ask.Begin(&input); err != nil {
		return "", err
	}
	cmd.Stdin = &input
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("keep %s: %w: %s", from.file.Name(), err, bytes.TrimSpace(output))
	}
	return fmt.Sprintf("%s %s", from.file.Name(), state), nil
}

// view returns the files of an image whose layers are files, and the command that a container would run; done
// releases the view.
func (w warmer) view() (_ oci.View, done func() error, err error) {
	cmd, err := w.loader.clientCommand(context.Background(), &ask.View{Image: w.image.Image, Snapshotter: w.image.Snapshotter})
	if err != nil {
		return oci.View{}, nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	hold, err := cmd.StdinPipe()
	if err != nil {
		return oci.View{}, nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return oci.View{}, nil, err
	}
	if err := cmd.Start(); err != nil {
		return oci.View{}, nil, err
	}
	done = func() error {
		hold.Close()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("wasm-client view: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
		}
		return nil
	}
	v, err := ask.ReadView(output)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it says nothing of the image")
		}
		return oci.View{}, nil, errors.Join(done(), err)
	}
	return v, done, nil
}
