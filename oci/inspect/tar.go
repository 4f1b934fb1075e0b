package inspect

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/blob"
)

// tarFile is an OCI layout in a tar.
type tarFile struct {
	file    *os.File
	entries map[string]section
}

// section is where an entry's content lies in the tar.
type section struct{ offset, size int64 }

// Named is an image in a source, and its name there, "" if it has none.
type Named struct {
	Name string
	Root ocispec.Descriptor
}

// Tar returns the images in a tar: an OCI layout, or the older format of "docker save". close closes the
// file.
func Tar(file string) (source blob.Source, images []Named, close func() error, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, nil, err
	}
	t := tarFile{file: f, entries: map[string]section{}}
	if err = t.isTar(); err == nil {
		images, err = t.scan()
	}
	if err == nil && images == nil {
		source, images, err = docker(file)
	} else {
		source = t
	}
	if err != nil {
		return nil, nil, nil, errors.Join(fmt.Errorf("read %s: %w", file, err), f.Close())
	}
	return source, images, f.Close, nil
}

// isTar returns an error that names the file's content if it is not a tar.
func (t tarFile) isTar() error {
	head := make([]byte, oci.HeadSize)
	n, err := t.file.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if content := oci.ContentOf(head[:n]); content != oci.Tar {
		return fmt.Errorf("it holds %s, not a tar archive with an image", content)
	}
	return nil
}

// Limits of a tar of an image. An OCI layout has no longer names.
const (
	maxEntries   = 100_000
	maxEntryName = 256
)

// scan returns the images that the layout's index names, nil if there is no layout.
func (t tarFile) scan() ([]Named, error) {
	archive := tar.NewReader(t.file)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		// The reader has read the header but not the content, and it does not read ahead.
		offset, err := t.file.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if header.Typeflag == tar.TypeReg && len(header.Name) <= maxEntryName {
			t.entries[path.Clean(header.Name)] = section{offset, header.Size}
		}
		if len(t.entries) > maxEntries {
			return nil, fmt.Errorf("it holds more than %d files", maxEntries)
		}
	}
	at, ok := t.entries[ocispec.ImageIndexFile]
	if !ok {
		return nil, nil
	}
	if at.size > oci.MaxManifest {
		return nil, fmt.Errorf("its index has %d bytes, the limit is %d", at.size, oci.MaxManifest)
	}
	data, err := io.ReadAll(io.NewSectionReader(t.file, at.offset, at.size))
	if err != nil {
		return nil, err
	}
	index, err := oci.ParseIndex(data)
	if err != nil {
		return nil, err
	}
	images := []Named{}
	for _, d := range index.Manifests {
		called := d.Annotations["io.containerd.image.name"]
		if called == "" {
			called = d.Annotations[ocispec.AnnotationRefName]
		}
		images = append(images, Named{called, d})
	}
	if len(images) == 0 {
		return nil, errors.New("its index names no image")
	}
	return images, nil
}

func (t tarFile) Open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	at, ok := t.entries["blobs/"+d.Digest.Algorithm().String()+"/"+d.Digest.Encoded()]
	if !ok {
		return nil, blob.ErrMissing
	}
	return io.NopCloser(io.NewSectionReader(t.file, at.offset, at.size)), nil
}

// dockerTar is an image in the older format of "docker save". Such a file has no OCI manifest;
// go-containerregistry makes one.
type dockerTar struct{ image v1.Image }

func docker(file string) (blob.Source, []Named, error) {
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(file) })
	if err != nil {
		return nil, nil, errors.New("it holds neither an OCI layout (index.json) nor a saved Docker image (manifest.json)")
	}
	if len(manifest) != 1 || len(manifest[0].RepoTags) > 1 {
		return nil, nil, errors.New("it is a saved Docker image with several names, which is not supported: save one")
	}
	image, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		return nil, nil, err
	}
	hash, err := image.Digest()
	if err != nil {
		return nil, nil, err
	}
	size, err := image.Size()
	if err != nil {
		return nil, nil, err
	}
	mediaType, err := image.MediaType()
	if err != nil {
		return nil, nil, err
	}
	root := ocispec.Descriptor{MediaType: string(mediaType), Size: size, Digest: digest.Digest(hash.String())}
	called := ""
	if len(manifest[0].RepoTags) == 1 {
		called = manifest[0].RepoTags[0]
	}
	return dockerTar{image}, []Named{{called, root}}, nil
}

func (t dockerTar) Open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	hash, err := v1.NewHash(d.Digest.String())
	if err != nil {
		return nil, err
	}
	if own, err := t.image.Digest(); err != nil || own == hash {
		raw, rawErr := t.image.RawManifest()
		return io.NopCloser(bytes.NewReader(raw)), errors.Join(err, rawErr)
	}
	if config, err := t.image.ConfigName(); err != nil || config == hash {
		raw, rawErr := t.image.RawConfigFile()
		return io.NopCloser(bytes.NewReader(raw)), errors.Join(err, rawErr)
	}
	layer, err := t.image.LayerByDigest(hash)
	if err != nil {
		return nil, blob.ErrMissing
	}
	return layer.Compressed()
}
