package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/oci/pack"
	"github.com/wasmshim/containerd-shim-wasm/oci/registry"
	"github.com/wasmshim/containerd-shim-wasm/oci/store"
)

const packUsage = `MODULE.wasm... -t NAME (-o FILE | --import | --push) [FLAG]...
makes an image of WebAssembly, the same one each time. Of several modules the first is the entry point.
A FILE that is there is replaced only with --force. A NAME that is there, in containerd or a registry,
moves to the new image, as with docker push.`

// packFlags is the command line of image pack.
type packFlags struct {
	tag, output, format, platforms string
	intoContainerd, push           bool
	plainHTTP, force               bool
	containerd                     *containerd
	files                          words
	options                        pack.Options
}

func (f *packFlags) add(set *flag.FlagSet) {
	set.StringVar(&f.tag, "t", "", "the image's `name`: hello is docker.io/library/hello:latest")
	set.StringVar(&f.output, "o", "", "write a tar, an OCI layout, to this `file`")
	set.BoolVar(&f.intoContainerd, "import", false, "write it into containerd")
	set.BoolVar(&f.push, "push", false, "write it to its registry, with the credentials of docker login")
	set.BoolVar(&f.plainHTTP, "plain-http", false, "talk to the registry without TLS; loopback and private addresses need it not")
	set.BoolVar(&f.force, "force", false, "replace the file of -o")
	f.containerd = containerdFlags(set)
	set.StringVar(&f.format, "format", pack.Formats()[0].Name, "the image's `format`, see below")
	set.StringVar(&f.platforms, "platform", "", "`os/architecture`; several, with commas, make an index with an image for each")
	o := &f.options
	set.Var((*words)(&o.Entrypoint), "entrypoint", "a `word` of the entry point; /MODULE.wasm by default")
	set.Var((*words)(&o.Args), "arg", "an `argument` of it, which those of a container replace")
	set.Var((*words)(&o.Env), "env", "an environment variable, `NAME=VALUE`")
	o.Annotations = map[string]string{}
	set.Var(pairs(o.Annotations), "annotation", "an annotation of the manifest, `KEY=VALUE`")
	set.Var(&f.files, "file", "a file to add, `HOST:GUEST`")
	set.StringVar(&o.MediaType, "media-type", "", "the media `type` of the Wasm layers")
	set.StringVar(&o.Compression, "compress", "", "gzip, zstd, zip or none: `how` Wasm layers are compressed (none by default), or files where there are none of those (gzip)")
}

// imagePack makes an image and writes it to the places that the flags name.
func imagePack(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags("image pack", packUsage, stdio)
	var f packFlags
	f.add(set)
	show := set.Usage
	set.Usage = func() {
		show()
		printFormats(set.Output())
	}
	if err := parse(set, flagsFirst(set, args), 1, len(args)); err != nil {
		return err
	}
	name, err := f.complete(set.Args())
	if err != nil {
		return err
	}
	image, err := pack.Make(f.options)
	if err != nil {
		return err
	}
	if err := f.take(ctx, image, name, stdio); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdio.out, "%s %s\n", name, image.Root.Digest)
	return err
}

func printFormats(w io.Writer) {
	fmt.Fprintln(w, "formats:")
	for _, f := range pack.Formats() {
		fmt.Fprintf(w, "  %-12s %s\n", f.Name, f.About)
	}
}

// complete turns the flags into options, and returns the image's full name.
func (f *packFlags) complete(modules []string) (string, error) {
	if f.tag == "" {
		return "", errors.New("image pack: give the image a name with -t; see image pack -h")
	}
	if f.output == "" && !f.intoContainerd && !f.push {
		return "", errors.New("image pack: say where it is to go with -o FILE, --import or --push; see image pack -h")
	}
	name, err := pack.Name(f.tag)
	if err != nil {
		return "", err
	}
	f.options.Modules = modules
	if f.options.Format, err = pack.FormatNamed(f.format); err != nil {
		return "", err
	}
	if f.platforms != "" {
		f.options.Platforms = strings.Split(f.platforms, ",")
	}
	for _, text := range f.files {
		file, err := pack.ParseFile(text)
		if err != nil {
			return "", fmt.Errorf("image pack: --file: %w", err)
		}
		f.options.Files = append(f.options.Files, file)
	}
	return name, nil
}

// take writes the image to every place that the flags name.
func (f *packFlags) take(ctx context.Context, image *pack.Image, name string, stdio stdio) error {
	progress := func(done, all int, b pack.Blob) {
		fmt.Fprintf(stdio.err, "%d of %d: %s %s (%d bytes)\n", done, all, b.MediaType, b.Digest, b.Size)
	}
	if f.output != "" {
		if err := image.WriteTar(f.output, name, f.force); err != nil {
			return err
		}
	}
	if f.intoContainerd {
		err := f.containerd.with(func(s *store.Store) error { return s.Import(ctx, name, image, progress) })
		if err != nil {
			return err
		}
	}
	if f.push {
		return registry.Push(ctx, name, image, registry.Options{PlainHTTP: f.plainHTTP}, progress)
	}
	return nil
}
