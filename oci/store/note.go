package store

import (
	"context"
	"encoding/json"
	"fmt"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

const (
	// noteExtension is the extension of a container that holds the note of its image. It is not a label,
	// because clients copy an image's labels to its containers: an image could make another image's module
	// run.
	noteExtension = "wasm.shim/image"
	// noteType is the type that ctr shows for it.
	noteType = "wasm.shim/image+json"
	// noteLabel makes containerd's garbage collector keep the manifest, and the content it refers to, for as
	// long as the container exists (scanRoots in containerd's metadata/gc.go).
	noteLabel = "containerd.io/gc.ref.content.wasm-shim"
)

// note is the image of a container, as JSON.
type note struct {
	Image    string        `json:"image"`
	Target   digest.Digest `json:"target"`
	Manifest digest.Digest `json:"manifest"`
	Size     int64         `json:"size"` // of the manifest, in bytes
	Platform string        `json:"platform"`
}

// remember writes the note of a container's image. It is a no-op if the container is gone.
func (s *Store) remember(ctx context.Context, id string, from origin) error {
	data, err := json.Marshal(note{from.image, from.target, from.digest, from.size, from.platform})
	if err != nil {
		return fmt.Errorf("encode image of container %s: %w", id, err)
	}
	_, err = s.containers.Update(ctx, &containers.UpdateContainerRequest{
		Container: &containers.Container{
			ID: id, Labels: map[string]string{noteLabel: from.digest.String()},
			Extensions: map[string]*anypb.Any{noteExtension: {TypeUrl: noteType, Value: data}},
		},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels." + noteLabel, "extensions." + noteExtension}},
	})
	if err != nil && !notFound(err) {
		return fmt.Errorf("note image of container %s: %w", id, explain(err))
	}
	return nil
}

// remembered returns the image that remember has noted, and whether there is a note.
func (s *Store) remembered(ctx context.Context, c *containers.Container) (origin, bool, error) {
	extension, ok := c.Extensions[noteExtension]
	if !ok {
		return origin{}, false, nil
	}
	var n note
	if err := json.Unmarshal(extension.Value, &n); err != nil {
		return origin{}, false, fmt.Errorf("read its image: %w", err)
	}
	chosen, err := s.manifest(ctx, ocispec.Descriptor{Digest: n.Manifest, Size: n.Size}, made{})
	if err != nil {
		return origin{}, false, fmt.Errorf("image %s: %w", n.Image, err)
	}
	chosen.platform = n.Platform
	return origin{n.Image, n.Target, chosen}, true, nil
}
