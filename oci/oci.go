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
)

// Found is what of a container's image matters to the shim. It is also the JSON that
// wasm-images find prints.
type Found struct {
	Image    string   `json:"image"`    // its name in containerd, "" for a container without an image
	Manifest string   `json:"manifest"` // the digest of the manifest that the container was made from
	Platform string   `json:"platform"` // of that manifest, as os/architecture[/variant]; "" if it names none
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

// Select returns the Wasm layer that a container's entry point names. A single one is
// meant whatever the entry point says, because images of one module often have none.
// Of several it is the one with the entry point's name or, if none has, base name; what
// follows a # in entry names a function and is left out.
//
// It returns ErrNoModule if there is no Wasm layer, and an error that lists the names if
// the entry point names none or more than one.
func (f Found) Select(entry string) (Module, error) {
	switch len(f.Modules) {
	case 0:
		return Module{}, fmt.Errorf("image %s: %w", f.Image, ErrNoModule)
	case 1:
		return f.Modules[0], nil
	}
	file, _, _ := strings.Cut(entry, "#")
	for _, same := range []func(name string) bool{
		func(name string) bool { return trimPath(name) == trimPath(file) },
		func(name string) bool { return path.Base(name) == path.Base(file) },
	} {
		if named := f.named(file, same); len(named) == 1 {
			return named[0], nil
		} else if len(named) > 1 {
			return Module{}, fmt.Errorf("image %s has %d Wasm layers with the name %q: give each a title of its own (annotation %s)",
				f.Image, len(named), file, ocispec.AnnotationTitle)
		}
	}
	if file == "" {
		return Module{}, fmt.Errorf("image %s has %d Wasm layers and no entry point that names one: set the entry point or the command to one of %s",
			f.Image, len(f.Modules), f.names())
	}
	return Module{}, fmt.Errorf("image %s has %d Wasm layers, none with the entry point's name %q: set the entry point or the command to one of %s",
		f.Image, len(f.Modules), file, f.names())
}

// named returns the different modules whose names fit.
func (f Found) named(file string, same func(name string) bool) []Module {
	if file == "" {
		return nil
	}
	var fit []Module
	seen := map[digest.Digest]bool{}
	for _, m := range f.Modules {
		if m.Name == "" || seen[m.Digest] || !same(m.Name) {
			continue
		}
		seen[m.Digest] = true
		fit = append(fit, m)
	}
	return fit
}

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
