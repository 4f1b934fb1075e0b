package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/oci/blob"
	"github.com/wasmshim/containerd-shim-wasm/oci/inspect"
	"github.com/wasmshim/containerd-shim-wasm/oci/pack"
	"github.com/wasmshim/containerd-shim-wasm/oci/registry"
	"github.com/wasmshim/containerd-shim-wasm/oci/store"
)

// imageInspect prints what the shim would run of an image.
func imageInspect(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags("image inspect", "IMAGE|FILE [--registry [--plain-http]] [--json] [--address SOCKET] [--namespace NAME] [--snapshotter NAME]\n"+
		"says what of an image runs and why, or why nothing does. IMAGE is one in containerd or, with\n"+
		"--registry, in its registry; FILE is a tar of one, and comes first if it exists.", stdio)
	containerd := containerdFlags(set)
	inRegistry := set.Bool("registry", false, "look at the image in its registry, not in containerd")
	plainHTTP := set.Bool("plain-http", false, "talk to the registry without TLS")
	snapshotter := set.String("snapshotter", "overlayfs", "the `name` of the snapshotter that has unpacked the image, where containerd has discarded its layers")
	asJSON := set.Bool("json", false, "print JSON")
	file := set.String("config", config.DefaultPath, "the node's configuration `file`, which limits what runs")
	if err := parse(set, flagsFirst(set, args), 1, 1); err != nil {
		return err
	}
	settings, err := config.Load(*file)
	if err != nil {
		return err
	}
	node := inspect.Node{MaxModuleSize: settings.MaxModuleSize, Precompiled: settings.Precompiled}
	at := set.Arg(0)
	var reports []inspect.Report
	switch {
	case *inRegistry:
		reports, err = inspectRegistry(ctx, at, registry.Options{PlainHTTP: *plainHTTP}, node)
	case isFile(at):
		reports, err = inspectTar(ctx, at, node)
	default:
		reports, err = inspectContainerd(ctx, containerd, *snapshotter, at, node)
	}
	if err != nil {
		return err
	}
	for _, r := range reports {
		if *asJSON {
			err = json.NewEncoder(stdio.out).Encode(r)
		} else {
			err = r.Print(stdio.out)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func inspectTar(ctx context.Context, path string, node inspect.Node) ([]inspect.Report, error) {
	source, named, close, err := inspect.Tar(path)
	if err != nil {
		return nil, err
	}
	defer close()
	var reports []inspect.Report
	for _, image := range named {
		if image.Name == "" {
			image.Name = path
		}
		r, err := inspect.Inspect(ctx, source, image, node)
		if err != nil {
			return nil, err
		}
		reports = append(reports, r)
	}
	return reports, nil
}

func inspectRegistry(ctx context.Context, ref string, options registry.Options, node inspect.Node) ([]inspect.Report, error) {
	parsed, err := options.Reference(ref)
	if err != nil {
		return nil, err
	}
	source, root, err := registry.Find(parsed, options.Remote(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("look up %s in %s: %w", ref, parsed.Context().RegistryStr(), err)
	}
	r, err := inspect.Inspect(ctx, source, inspect.Named{Name: parsed.Name(), Root: root}, node)
	return []inspect.Report{r}, err
}

func inspectContainerd(ctx context.Context, c *containerd, snapshotter, image string, node inspect.Node) (reports []inspect.Report, err error) {
	err = c.with(func(s *store.Store) error {
		named, err := c.lookUp(ctx, s, image)
		if err != nil {
			return err
		}
		r, err := inspect.Inspect(ctx, unpackedImages{s, snapshotter}, named, node)
		reports = []inspect.Report{r}
		return err
	})
	return reports, err
}

// lookUp finds an image in containerd by its name as given or, if there is none, by its full name.
func (c containerd) lookUp(ctx context.Context, s *store.Store, image string) (inspect.Named, error) {
	names := []string{image}
	if whole, err := pack.Name(image); err == nil && whole != image {
		names = append(names, whole)
	}
	for _, name := range names {
		root, err := s.Target(ctx, name)
		if !errors.Is(err, store.ErrNoImage) {
			return inspect.Named{Name: name, Root: root}, err
		}
	}
	return inspect.Named{}, fmt.Errorf("image %s is not in containerd (namespace %s): pull or import it, or give --registry or --namespace", image, c.Namespace)
}

// imageAdapt gives an artifact an image's config.
func imageAdapt(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags("image adapt", "IMAGE -t NAME [--entrypoint WORD]... [--arg WORD]... [--env NAME=VALUE]... [--platform OS/ARCH] [--address SOCKET] [--namespace NAME]\n"+
		"gives an artifact in containerd the config of an image, under another name, for ctr, which takes no\n"+
		"other. Layers are not copied. A NAME that is there moves to the new image.", stdio)
	containerd := containerdFlags(set)
	tag := set.String("t", "", "the `name` of the new image")
	var o pack.AdaptOptions
	set.Var((*words)(&o.Entrypoint), "entrypoint", "a `word` of the entry point; of several Wasm layers the first word names one by its title")
	set.Var((*words)(&o.Args), "arg", "an `argument`, which those of ctr run replace")
	set.Var((*words)(&o.Env), "env", "an environment variable, `NAME=VALUE`")
	set.StringVar(&o.Platform, "platform", "", "`os/architecture` of the new image; this machine's by default, so that nobody has to ask for it")
	if err := parse(set, flagsFirst(set, args), 1, 1); err != nil {
		return err
	}
	if *tag == "" {
		return errors.New("image adapt: give the new image a name with -t; see image adapt -h")
	}
	name, err := pack.Name(*tag)
	if err != nil {
		return err
	}
	return containerd.with(func(s *store.Store) error {
		from, err := containerd.lookUp(ctx, s, set.Arg(0))
		if err != nil {
			return err
		}
		adapted, err := adapt(ctx, s, from, o)
		if err != nil {
			return err
		}
		if err := s.Import(ctx, name, adapted, nil); err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdio.out, "%s %s\n", name, adapted.Root.Digest)
		return err
	})
}

// adapt makes an image from the manifest that the shim would choose.
func adapt(ctx context.Context, s *store.Store, from inspect.Named, o pack.AdaptOptions) (*pack.Image, error) {
	found, err := s.FindImage(ctx, from.Name)
	if err != nil {
		return nil, err
	}
	manifest, err := blob.Manifest(ctx, s, from.Root, digest.Digest(found.Manifest))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", from.Name, err)
	}
	adapted, err := pack.Adapt(ctx, manifest, s, o)
	if err != nil {
		return nil, fmt.Errorf("adapt image %s: %w", from.Name, err)
	}
	return adapted, nil
}
