// Package pack makes images and artifacts that hold WebAssembly, in every format that tools of the
// field make, and writes them to files. Packages store and registry take them further. What it makes depends on
// its input and, unless a platform is given, on the architecture of this machine, never on the time.
// It never runs or compiles what it packs.
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

// Image is a manifest or an index with all that it refers to.
type Image struct {
	Root  ocispec.Descriptor // a manifest or an index
	Blobs []Blob             // each after those it refers to, the root last, none twice
}

// Blob is content and what describes it.
type Blob struct {
	ocispec.Descriptor
	Refs []ocispec.Descriptor // what a manifest or an index refers to: the config first

	open func() (io.ReadCloser, error)
}

// Open returns the content, which the caller closes.
func (b Blob) Open() (io.ReadCloser, error) { return b.open() }

// Progress is told of each blob once it is where it was to go: how many of all, and its description.
type Progress func(done, all int, b Blob)

// add keeps a blob, once.
func (i *Image) add(b Blob) {
	for _, have := range i.Blobs {
		if have.Digest == b.Digest {
			return
		}
	}
	i.Blobs = append(i.Blobs, b)
}

// addJSON keeps a value as a blob and describes it.
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

// fileBlob is read from the file each time it is needed, so a large module is never held in memory.
// Whoever writes the blob compares its digest, in case the file has changed by then.
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
