// Package oci reads what registries and containerd's content store hold of images:
// which layers of an image are WebAssembly, and which of them an entry point names.
//
// It only judges bytes and names that it is given. It never reaches the network,
// containerd or the file system (package store below it does), and never runs or
// compiles anything.
package oci

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
)

// Found is what of a container's image matters to the shim. It is also the JSON that
// wasm-client find prints.
type Found struct {
	Image    string   `json:"image"`    // its name in containerd, "" for a container without an image
	Target   string   `json:"target"`   // the digest that the name stands for: Manifest, or an index that leads to it
	Manifest string   `json:"manifest"` // the digest of the manifest that the container was made from
	Platform string   `json:"platform"` // of that manifest, as os/architecture[/variant]; "" if it names none
	Entry    string   `json:"entry"`    // the first word of the image's own command, "" if it has none
	Modules  []Module `json:"modules"`  // its Wasm layers, in the manifest's order
}

// Module is a layer that is WebAssembly rather than an archive of files.
type Module struct {
	Name        string        `json:"name"` // its title, "" if it has none
	Digest      digest.Digest `json:"digest"`
	Size        int64         `json:"size"` // in bytes, as stored
	MediaType   string        `json:"mediaType"`
	Compression string        `json:"compression"` // "", "gzip", "zstd" or "zip", as the media type says
	// Path is the blob's file in containerd's local content store. It is named by
	// containerd's own folder and a valid digest, never by the image.
	Path string `json:"path"`
}

// ErrNoModule says that an image has no Wasm layer at all: its module, if it has one,
// is a file in one of its other layers.
var ErrNoModule = errors.New("no layer of it is WebAssembly")

// Select returns the Wasm layer that a command names, be it a container's or an exec's: the one whose
// title is the command's file or, if none has that, ends in the same base name. "/" stands for the image's
// own entry point.
//
// A single layer has further names: the image's own entry point, whatever that is, or, where there is
// neither title nor entry point to go by, any name of a .wasm file. Nothing else is meant for it: a
// probe's "cat" must not start the image's program.
//
// It returns ErrNoModule if there is no Wasm layer, and an error that lists the names if
// the command names none or more than one.
func (f Found) Select(p entrypoint.Point) (Module, error) {
	if len(f.Modules) == 0 {
		return Module{}, fmt.Errorf("image %s: %w", f.Image, ErrNoModule)
	}
	own := entrypoint.Parse(f.Entry)
	if own.IsRoot() {
		own = entrypoint.Point{}
	}
	if p.IsRoot() {
		p = own
	}
	for _, same := range []func(a, b string) bool{sameName, sameBase} {
		if named := f.named(p.File, same); len(named) == 1 {
			return named[0], nil
		} else if len(named) > 1 {
			return Module{}, fmt.Errorf("image %s has %d Wasm layers with the name %q: give each a title of its own (annotation %s)",
				f.Image, len(named), p.File, ocispec.AnnotationTitle)
		}
	}
	if len(f.Modules) == 1 && f.Modules[0].isMeant(p.File, own.File) {
		return f.Modules[0], nil
	}
	return Module{}, f.unnamed(p.File)
}

// isMeant reports whether a name that is not the title of an image's only Wasm layer means it all the same.
// own is the file of the image's own entry point.
func (m Module) isMeant(file, own string) bool {
	switch {
	case file == "": // nothing is said, nor is there anything to choose from
		return true
	case own != "":
		return sameName(file, own) || sameBase(file, own)
	}
	return m.Name == "" && strings.HasSuffix(file, entrypoint.Suffix)
}

// unnamed says what to write instead of a name that no module has.
func (f Found) unnamed(file string) error {
	switch {
	case file == "":
		return fmt.Errorf("image %s has %d Wasm layers and no entry point that names one: set the entry point or the command to one of %s",
			f.Image, len(f.Modules), f.names())
	case len(f.Modules) > 1:
		return fmt.Errorf("image %s has %d Wasm layers, none with the entry point's name %q: set the entry point or the command to one of %s",
			f.Image, len(f.Modules), file, f.names())
	case f.Entry != "":
		return fmt.Errorf("image %s has one Wasm layer, which %q does not name: its name is %s", f.Image, file, f.Entry)
	case f.Modules[0].Name != "":
		return fmt.Errorf("image %s has one Wasm layer, which %q does not name: its name is %s", f.Image, file, f.Modules[0].Name)
	}
	return fmt.Errorf("image %s has one Wasm layer, which %q does not name: it has no name of its own, and any that ends in %s means it",
		f.Image, file, entrypoint.Suffix)
}

// named returns the different modules whose names fit.
func (f Found) named(file string, same func(a, b string) bool) []Module {
	if file == "" {
		return nil
	}
	var fit []Module
	seen := map[digest.Digest]bool{}
	for _, m := range f.Modules {
		if m.Name == "" || seen[m.Digest] || !same(m.Name, file) {
			continue
		}
		seen[m.Digest] = true
		fit = append(fit, m)
	}
	return fit
}

func sameName(a, b string) bool { return trimPath(a) == trimPath(b) }

func sameBase(a, b string) bool { return path.Base(a) == path.Base(b) }

// trimPath makes /app.wasm, ./app.wasm and app.wasm the same: a title is relative to
// nothing, an entry point often starts at the container's root.
func trimPath(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (f Found) names() string {
	names := make([]string, len(f.Modules))
	for i, m := range f.Modules {
		names[i] = m.String()
	}
	return strings.Join(names, ", ")
}

// String names a module in messages.
func (m Module) String() string {
	if m.Name != "" {
		return m.Name
	}
	return m.Digest.String() + " (without a title)"
}
