// Package testimage makes images of every format in which Wasm is shipped, and faulty images of every
// kind, byte for byte. It shares no code with the product's packing and reading of images, so that
// neither is checked against itself. No shipped binary imports it.
package testimage

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a manifest or an index with everything that it refers to.
type Image struct {
	Root  ocispec.Descriptor
	Blobs map[digest.Digest][]byte // configs, layers, manifests and the root itself

	manifests []ocispec.Descriptor // in the order that a registry needs, the root last
}

// Manifests returns the descriptors of the manifests that the image holds, without an index's own.
func (i *Image) Manifests() []ocispec.Descriptor {
	return slices.DeleteFunc(slices.Clone(i.manifests), func(d ocispec.Descriptor) bool { return isIndex(d.MediaType) })
}

// Wasm returns the digests of all layers, in all manifests, that are not file layers.
func (i *Image) Wasm() []digest.Digest {
	var found []digest.Digest
	for _, d := range i.Manifests() {
		var manifest ocispec.Manifest
		if json.Unmarshal(i.Blobs[d.Digest], &manifest) != nil {
			continue
		}
		for _, layer := range manifest.Layers {
			if !isFiles(layer.MediaType) && !slices.Contains(found, layer.Digest) {
				found = append(found, layer.Digest)
			}
		}
	}
	return found
}

func newImage() *Image { return &Image{Blobs: map[digest.Digest][]byte{}} }

// add stores content as a blob and returns its descriptor.
func (i *Image) add(mediaType string, content []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	i.Blobs[d.Digest] = content
	return d
}

// addJSON stores a value as a blob and returns its descriptor. All values of this package can be
// marshalled.
func (i *Image) addJSON(mediaType string, value any) ocispec.Descriptor {
	content, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("writing %s: %v", mediaType, err))
	}
	return i.add(mediaType, content)
}

// manifest stores value as a manifest of the media type and makes it the root of the image.
func (i *Image) manifest(mediaType string, value any) {
	i.Root = i.addJSON(mediaType, value)
	i.manifests = append(i.manifests, i.Root)
}

// merge adds the content of another image and returns the descriptor of its root.
func (i *Image) merge(other *Image) ocispec.Descriptor {
	maps.Copy(i.Blobs, other.Blobs)
	for _, d := range other.manifests {
		if !slices.ContainsFunc(i.manifests, func(have ocispec.Descriptor) bool { return have.Digest == d.Digest }) {
			i.manifests = append(i.manifests, d)
		}
	}
	return other.Root
}

// Push writes the image to a registry: blobs, manifests, and the root under the name.
func (i *Image) Push(ref name.Reference, options ...remote.Option) error {
	for _, key := range i.order() {
		if i.isManifest(key) {
			continue
		}
		layer := static.NewLayer(i.Blobs[key], types.MediaType("application/octet-stream"))
		if err := remote.WriteLayer(ref.Context(), layer, options...); err != nil {
			return fmt.Errorf("blob %s: %w", key, err)
		}
	}
	for _, d := range i.manifests {
		at := name.Reference(ref.Context().Digest(d.Digest.String()))
		if d.Digest == i.Root.Digest {
			at = ref
		}
		if err := remote.Put(at, raw{d, i.Blobs[d.Digest]}, options...); err != nil {
			return fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
	}
	return nil
}

func (i *Image) order() []digest.Digest { return slices.Sorted(maps.Keys(i.Blobs)) }

func (i *Image) isManifest(key digest.Digest) bool {
	return slices.ContainsFunc(i.manifests, func(d ocispec.Descriptor) bool { return d.Digest == key })
}

// raw is a manifest in the form that go-containerregistry pushes.
type raw struct {
	descriptor ocispec.Descriptor
	content    []byte
}

func (r raw) RawManifest() ([]byte, error) { return r.content, nil }

func (r raw) MediaType() (types.MediaType, error) {
	return types.MediaType(r.descriptor.MediaType), nil
}

// WriteTar writes the image as an OCI layout in a tar that "ctr image import" takes, under the
// whole name (as in example.com/tests/hello:latest). Equal images give equal files.
func (i *Image) WriteTar(path, ref string) error {
	if err := i.writeTar(path, ref); err != nil {
		return fmt.Errorf("write image %s to %s: %w", ref, path, err)
	}
	return nil
}

func (i *Image) writeTar(path, ref string) (err error) {
	tag, err := name.NewTag(ref, name.StrictValidation)
	if err != nil {
		return err
	}
	root := i.Root
	// containerd's importer takes the names of images from these annotations
	// (core/images/annotations.go).
	root.Annotations = map[string]string{"io.containerd.image.name": ref, ocispec.AnnotationRefName: tag.TagStr()}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{root},
	})
	if err != nil {
		return err
	}
	entries := map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": index}
	for key, content := range i.Blobs {
		entries["blobs/"+key.Algorithm().String()+"/"+key.Encoded()] = content
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(file)
	for _, at := range slices.Sorted(maps.Keys(entries)) {
		if err := writeFile(archive, at, entries[at]); err != nil {
			return fmt.Errorf("%w (and %v)", err, file.Close())
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("%w (and %v)", err, file.Close())
	}
	return file.Close()
}

func writeFile(archive *tar.Writer, at string, content []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: 0o644, Size: int64(len(content))}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerList
}
