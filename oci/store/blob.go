package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"

	content "github.com/containerd/containerd/api/services/content/v1"
	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// errMissing says that a blob is not in containerd's content store.
var errMissing = errors.New("it is not on this node: pull the image again")

// contentPlugin is containerd's content store on a local disk: it tells its folder as an
// export named root (containerd 1.7: services/server/server.go, 2.x:
// plugins/content/local/plugin).
const contentPlugin = "type==io.containerd.content.v1,id==content"

// blobs returns a function that returns the folder of containerd's content store, which
// it asks for once.
func (s *Store) blobs(ctx context.Context) func() (string, error) {
	return sync.OnceValues(func() (string, error) { return s.root(ctx) })
}

func (s *Store) root(ctx context.Context) (string, error) {
	response, err := s.introspection.Plugins(ctx, &introspection.PluginsRequest{Filters: []string{contentPlugin}})
	if err != nil {
		return "", fmt.Errorf("ask containerd for its content store: %w", explain(err))
	}
	for _, p := range response.Plugins {
		if root := p.Exports["root"]; filepath.IsAbs(root) && p.InitErr == nil {
			return root, nil
		}
	}
	return "", errors.New("containerd's content store is not a folder on this node, which Wasm layers need: " +
		"enable its plugin io.containerd.content.v1.content, or put the module into a tar layer")
}

// blobPath is a blob's file (containerd, content/local: blobs/ALGORITHM/HEX).
func blobPath(root string, d digest.Digest) string {
	return filepath.Join(root, "blobs", d.Algorithm().String(), d.Encoded())
}

// size returns a blob's size in bytes as the store knows it.
func (s *Store) size(ctx context.Context, d digest.Digest) (int64, error) {
	response, err := s.content.Info(ctx, &content.InfoRequest{Digest: d.String()})
	if err != nil {
		return 0, err
	}
	return response.Info.Size, nil
}

// read returns a blob of at most limit bytes through containerd, its digest verified.
// The error is errMissing if it is not there.
func (s *Store) read(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", d.Digest, err)
	}
	if d.Size < 0 || d.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d", d.Digest, d.Size, limit)
	}
	ctx, cancel := context.WithCancel(ctx) // ends a stream that is left early
	defer cancel()
	stream, err := s.content.Read(ctx, &content.ReadContentRequest{Digest: d.Digest.String()})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Digest, explain(err))
	}
	var data []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if notFound(err) {
			return nil, fmt.Errorf("%s: %w", d.Digest, errMissing)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", d.Digest, explain(err))
		}
		data = append(data, part.Data...)
		if int64(len(data)) > d.Size {
			return nil, fmt.Errorf("%s is larger than the %d bytes of its descriptor: remove the image and pull it again", d.Digest, d.Size)
		}
	}
	if int64(len(data)) != d.Size || d.Digest.Algorithm().FromBytes(data) != d.Digest {
		return nil, fmt.Errorf("%s has another content than its digest says: remove the image and pull it again", d.Digest)
	}
	return data, nil
}

func descriptor(mediaType, dgst string, size int64) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(dgst), Size: size}
}
