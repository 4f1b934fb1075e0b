// Package oci reads the manifests and configurations of images. It finds the layers that are WebAssembly, and
// the one of them that an entry point names.
//
// It only examines bytes and names that its callers pass. It never reaches the network, containerd or the
// file system (package store below it does), and never runs or compiles anything.
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

// Found is the part of a container's image that the shim needs. It is also the JSON that wasm-client find
// prints.
type Found struct {
	Image    string   `json:"image"`    // its name in containerd, "" for a container without an image
	Target   string   `json:"target"`   // the digest that the name refers to: Manifest, or an index that leads to it
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

// ErrNoModule is returned for an image without a Wasm layer: its module, if any, is a file in one of its
// other layers.
var ErrNoModule = errors.New("no layer of it is WebAssembly")

// Select returns the Wasm layer that the command of a container or an exec names. It is the layer whose title
// is the command's file or, if there is none, whose title has the same base name. "/" is the image's own
// entry point.
//
// A single layer has further names: the image's own entry point, whatever that is, or, if there is neither a
// title nor an entry point, any name of a .wasm file. No other name selects it: a probe's "cat" must not
// start the image's program.
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

// isMeant reports whether a name selects an image's only Wasm layer without being its title. own is the file
// of the image's own entry point.
func (m Module) isMeant(file, own string) bool {
	switch {
	case file == "": // neither the command nor the image names a file, and there is only one layer
		return true
	case own != "":
		return sameName(file, own) || sameBase(file, own)
	}
	return m.Name == "" && strings.HasSuffix(file, entrypoint.Suffix)
}

// unnamed returns the error for a name that no module has. It says what to write instead.
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

// named returns the distinct modules whose names match.
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

// trimPath maps /app.wasm, ./app.wasm and app.wasm to the same name: a title has no base directory, and an
// entry point often starts at the container's root.
func trimPath(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (f Found) names() string {
	names := make([]string, len(f.Modules))
	for i, m := range f.Modules {
		names[i] = m.String()
	}
	return strings.Join(names, ", ")
}

// String returns the name of a module for messages.
func (m Module) String() string {
	if m.Name != "" {
		return m.Name
	}
	return m.Digest.String() + " (without a title)"
}
