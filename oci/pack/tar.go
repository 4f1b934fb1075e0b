package pack

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// annotationImageName is the annotation in which containerd's importer finds the full name
// (core/images/annotations.go).
const annotationImageName = "io.containerd.image.name"

// WriteTar writes the image as an OCI layout in a tar, which "ctr images import", "nerdctl load" and "docker
// load" accept, under a name that [Name] returned. It writes the whole file or none. It replaces an existing
// file only if replace is set.
func (i *Image) WriteTar(path, ref string, replace bool) error {
	if err := i.writeTar(path, ref, replace); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (i *Image) writeTar(path, ref string, replace bool) error {
	// Check early to fail before a large image is written; os.Link below decides.
	if _, err := os.Lstat(path); err == nil && !replace {
		return fmt.Errorf("%w: remove it or give --force", os.ErrExist)
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".image-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // a no-op if it was renamed
	if err := errors.Join(i.archive(file, ref), file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	if replace {
		return os.Rename(file.Name(), path)
	}
	err = os.Link(file.Name(), path)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w: remove it or give --force", os.ErrExist)
	}
	return err
}

func (i *Image) archive(w io.Writer, ref string) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	root := i.Root
	root.Annotations = map[string]string{annotationImageName: ref, ocispec.AnnotationRefName: tag.TagStr()}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{root},
	})
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	layout := bytesBlob("", []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`))
	err = errors.Join(
		writeBlob(archive, ocispec.ImageLayoutFile, layout),
		writeBlob(archive, ocispec.ImageIndexFile, bytesBlob("", index)),
	)
	if err != nil {
		return err
	}
	for _, b := range i.Blobs {
		if err := writeBlob(archive, "blobs/"+b.Digest.Algorithm().String()+"/"+b.Digest.Encoded(), b); err != nil {
			return err
		}
	}
	return archive.Close()
}

func writeBlob(archive *tar.Writer, at string, b Blob) error {
	content, err := b.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: 0o644, Size: b.Size}); err != nil {
		return err
	}
	digester := digest.SHA256.Digester()
	n, err := io.Copy(io.MultiWriter(archive, digester.Hash()), content)
	if errors.Is(err, tar.ErrWriteTooLong) || err == nil && (n != b.Size || digester.Digest() != b.Digest) {
		return fmt.Errorf("a file has changed while it was packed: do it again")
	}
	return err
}
