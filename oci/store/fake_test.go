package store

import (
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"testing"

	content "github.com/containerd/containerd/api/services/content/v1"
	images "github.com/containerd/containerd/api/services/images/v1"
	introspection "github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fake is a containerd that gives answers that a real one gives only if it is damaged. It has one image,
// which it returns for every name.
type fake struct {
	*testing.T
	blobs  map[digest.Digest][]byte
	labels map[string]string // of every blob
	target ocispec.Descriptor
	plugin *introspection.Plugin // its content store
}

func newFake(t *testing.T) *fake {
	return &fake{T: t, blobs: map[digest.Digest][]byte{}, plugin: &introspection.Plugin{Exports: map[string]string{"root": t.TempDir()}}}
}

// connect serves the fake on a socket and returns a connection to it.
func (f *fake) connect() *Store {
	f.Helper()
	socket := filepath.Join(f.TempDir(), "c.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		f.Fatal(err)
	}
	server := grpc.NewServer()
	content.RegisterContentServer(server, fakeContent{fake: f})
	images.RegisterImagesServer(server, fakeImages{fake: f})
	introspection.RegisterIntrospectionServer(server, fakeIntrospection{fake: f})
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	f.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	s, err := Connect(socket, "namespace")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	return s
}

func (f *fake) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	f.blobs[d.Digest] = data
	return d
}

func (f *fake) json(mediaType string, value any) ocispec.Descriptor {
	f.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		f.Fatal(err)
	}
	return f.blob(mediaType, data)
}

func (f *fake) image(layers ...ocispec.Descriptor) ocispec.Descriptor {
	f.Helper()
	config := f.json(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "wasi", Architecture: "wasm"}})
	return f.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: config, Layers: layers})
}

func (f *fake) index(manifests ...ocispec.Descriptor) ocispec.Descriptor {
	f.Helper()
	return f.json(ocispec.MediaTypeImageIndex, ocispec.Index{Manifests: manifests})
}

type fakeContent struct {
	content.UnimplementedContentServer
	fake *fake
}

func (c fakeContent) blob(name string) ([]byte, error) {
	data, ok := c.fake.blobs[digest.Digest(name)]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "content %s: not found", name)
	}
	return data, nil
}

func (c fakeContent) Info(_ context.Context, r *content.InfoRequest) (*content.InfoResponse, error) {
	data, err := c.blob(r.Digest)
	return &content.InfoResponse{Info: &content.Info{Digest: r.Digest, Size: int64(len(data)), Labels: c.fake.labels}}, err
}

// Read sends the blob in parts of a few bytes each.
func (c fakeContent) Read(r *content.ReadContentRequest, stream content.Content_ReadServer) error {
	data, err := c.blob(r.Digest)
	if err != nil {
		return err
	}
	for len(data) > 0 {
		n := min(len(data), 50)
		if err := stream.Send(&content.ReadContentResponse{Data: data[:n]}); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

type fakeImages struct {
	images.UnimplementedImagesServer
	fake *fake
}

func (i fakeImages) Get(_ context.Context, r *images.GetImageRequest) (*images.GetImageResponse, error) {
	t := i.fake.target
	return &images.GetImageResponse{Image: &images.Image{
		Name: r.Name, Target: &types.Descriptor{MediaType: t.MediaType, Digest: t.Digest.String(), Size: t.Size},
	}}, nil
}

type fakeIntrospection struct {
	introspection.UnimplementedIntrospectionServer
	fake *fake
}

func (i fakeIntrospection) Plugins(context.Context, *introspection.PluginsRequest) (*introspection.PluginsResponse, error) {
	return &introspection.PluginsResponse{Plugins: []*introspection.Plugin{i.fake.plugin}}, nil
}
