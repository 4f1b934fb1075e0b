// Package pack makes images and artifacts that hold WebAssembly, in every format that existing tools make,
// and writes them to files. Packages store and registry write them elsewhere. The result depends on the input
// and, unless a platform is given, on the architecture of this machine, never on the time. It never runs or
// compiles the modules that it packs.
package pack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a manifest or an index with all content that it refers to.
type Image struct {
	Root  ocispec.Descriptor // a manifest or an index
	Blobs []Blob             // each after those it refers to, the root last, no duplicates
}

// Blob is content and its descriptor.
type Blob struct {
	ocispec.Descriptor
	Refs []ocispec.Descriptor // of a manifest or an index: the blobs that it refers to, the config first

	open func() (io.ReadCloser, error)
}

// Open returns the content, which the caller closes.
func (b Blob) Open() (io.ReadCloser, error) { return b.open() }

// Progress is called after each blob has been written, with the number of blobs done, the number of all, and
// the blob.
type Progress func(done, all int, b Blob)

// add adds a blob unless it is there already.
func (i *Image) add(b Blob) {
	for _, have := range i.Blobs {
		if have.Digest == b.Digest {
			return
		}
	}
	i.Blobs = append(i.Blobs, b)
}

// addJSON adds a value as a blob and returns its descriptor.
func (i *Image) addJSON(mediaType string, value any, refs ...ocispec.Descriptor) (ocispec.Descriptor, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("write %s: %w", mediaType, err)
	}
	b := bytesBlob(mediaType, content)
	b.Refs = refs
	i.add(b)
	return b.Descriptor, nil
}

func bytesBlob(mediaType string, content []byte) Blob {
	return Blob{
		Descriptor: ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))},
		open:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}
}

// fileBlob returns a blob that is read from its file each time, so that a large module is never held in
// memory. The writer of the blob compares its digest, in case the file has changed by then.
func fileBlob(mediaType, path string) (Blob, error) {
	open := func() (io.ReadCloser, error) { return os.Open(path) }
	file, err := open()
	if err != nil {
		return Blob{}, err
	}
	defer file.Close()
	digester := digest.SHA256.Digester()
	size, err := io.Copy(digester.Hash(), file)
	if err != nil {
		return Blob{}, fmt.Errorf("read %s: %w", path, err)
	}
	return Blob{Descriptor: ocispec.Descriptor{MediaType: mediaType, Digest: digester.Digest(), Size: size}, open: open}, nil
}
