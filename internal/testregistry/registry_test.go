package testregistry_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testregistry"
)

var nodes = testnode.Pool{Options: testnode.Options{CRI: true}}

func TestMain(m *testing.M) { nodes.Main(m) }

func randomImage(t *testing.T) (v1.Image, digest.Digest) {
	t.Helper()
	image, err := random.Image(4096, 2)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	hash, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	return image, digest.Digest(hash.String())
}

func TestPushedImageIsReadBack(t *testing.T) {
	registry := testregistry.Start(t)
	image, layer := randomImage(t)
	ref := registry.PushImage(t, "random", image)
	if want := registry.Ref("random"); ref != want {
		t.Errorf("pushed %s, want %s", ref, want)
	}
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(parsed)
	if err != nil {
		t.Fatal(err)
	}
	if same(t, image) != same(t, got) {
		t.Errorf("read back %s, want %s", same(t, got), same(t, image))
	}
	if registry.Served(layer) != 0 {
		t.Errorf("a layer that nobody read was served %d times", registry.Served(layer))
	}
}

func same(t *testing.T, image v1.Image) string {
	t.Helper()
	hash, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return hash.String()
}

func TestReplacedBlob(t *testing.T) {
	registry := testregistry.Start(t)
	image, layer := randomImage(t)
	registry.PushImage(t, "random", image)
	registry.Replace(layer, []byte("other"))
	response, err := http.Get("http://" + registry.Addr + "/v2/random/blobs/" + layer.String())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content, []byte("other")) {
		t.Errorf("got %q", content)
	}
	if registry.Served(layer) != 1 {
		t.Errorf("served %d times, want once", registry.Served(layer))
	}
}

// Nodes with CRI have a network namespace of their own. Each containerd pulls without a setting
// for a registry without TLS.
func TestNodesPull(t *testing.T) {
	registry := testregistry.Start(t)
	image, layer := randomImage(t)
	ref := registry.PushImage(t, "random", image)
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		registry.ServeIn(t, node.PID())
		before := registry.Served(layer)
		connection, err := grpc.NewClient("unix://"+node.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		images := criapi.NewImageServiceClient(connection)
		request := &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref}}
		if _, err := images.PullImage(t.Context(), request); err != nil {
			t.Error(err)
		}
		if got := registry.Served(layer) - before; got != 1 {
			t.Errorf("CRI fetched the layer %d times, want once", got)
		}
	})
}
