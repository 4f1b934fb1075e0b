package store

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// Errors of an image or of containerd's store contain the image's name and, where possible, a remedy.
func TestFindImageRefuses(t *testing.T) {
	absent := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 6}
	for name, test := range map[string]struct {
		prepare func(f *fake)
		words   []string
	}{
		"damaged manifest": {func(f *fake) {
			f.target = f.image()
			data := f.blobs[f.target.Digest]
			f.blobs[f.target.Digest] = append([]byte(" "), data[:len(data)-1]...)
		}, []string{"another content", "pull it again"}},
		"short manifest": {func(f *fake) {
			f.target = f.image()
			f.blobs[f.target.Digest] = f.blobs[f.target.Digest][1:]
		}, []string{"another content", "pull it again"}},
		"long manifest": {func(f *fake) {
			f.target = f.image()
			f.blobs[f.target.Digest] = append(f.blobs[f.target.Digest], make([]byte, 1000)...)
		}, []string{"larger than", "pull it again"}},
		"huge manifest":    {func(f *fake) { f.target = f.image(); f.target.Size = oci.MaxManifest + 1 }, []string{"limit"}},
		"missing manifest": {func(f *fake) { f.target = absent }, []string{absent.Digest.String(), "pull the image again"}},
		"missing config": {func(f *fake) {
			config := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: absent.Digest, Size: 6}
			f.target = f.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{Config: config})
		}, []string{"configuration", absent.Digest.String(), "pull the image again"}},
		"no config": {func(f *fake) {
			f.target = f.json(ocispec.MediaTypeImageManifest, map[string]any{"layers": []any{}})
		}, []string{"no config"}},
		"not an image": {func(f *fake) { f.target = f.blob("text/plain", []byte("hello")) }, []string{"text/plain"}},
		"bad digest": {func(f *fake) {
			f.target = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: "sha256:../../x", Size: 1}
		}, []string{"sha256:../../x"}},
		"empty index": {func(f *fake) { f.target = f.index() }, []string{"empty"}},
		"index of absent manifests": {func(f *fake) {
			other := absent
			other.Platform = &ocispec.Platform{OS: "windows", Architecture: "arm64"}
			f.target = f.index(absent, other)
		}, []string{"windows/arm64", "one without a platform", "--platform"}},
		"indexes within indexes": {func(f *fake) {
			f.target = f.index(f.image())
			for range maxDepth {
				f.target = f.index(f.target)
			}
		}, []string{"lies in more than"}},
		"index of too many": {func(f *fake) {
			many := make([]ocispec.Descriptor, maxCandidates+1)
			for i := range many {
				many[i] = absent
			}
			f.target = f.index(many...)
		}, []string{"more than 256"}},
		"index of a broken manifest": {func(f *fake) {
			f.target = f.index(f.json(ocispec.MediaTypeImageManifest, map[string]any{"layers": []any{}}))
		}, []string{"no config"}},
		"no folder": {func(f *fake) {
			f.target = f.image(f.blob(oci.MediaTypeWasm, []byte("\x00asm")))
			f.plugin.Exports = map[string]string{"address": "/run/store.sock"}
		}, []string{"content store is not a folder on this node", "io.containerd.content.v1.content"}},
		"store that failed": {func(f *fake) {
			f.target = f.image(f.blob(oci.MediaTypeWasm, []byte("\x00asm")))
			f.plugin.InitErr = status.New(codes.Unknown, "disabled").Proto()
		}, []string{"content store is not a folder on this node"}},
		"layer without its file": {func(f *fake) {
			f.target = f.image(f.blob(oci.MediaTypeWasm, []byte("\x00asm")))
		}, []string{digest.FromString("\x00asm").String(), "gone from containerd's content store", "pull it again"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			test.prepare(f)
			found, err := f.connect().FindImage(t.Context(), "example.com/app:latest")
			if err == nil {
				t.Fatalf("found %+v", found)
			}
			for _, word := range append(test.words, "image example.com/app:latest: ") {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q has no %q", err, word)
				}
			}
		})
	}
}

// An image without Wasm layers needs no local store.
func TestFindImageWithoutFolder(t *testing.T) {
	f := newFake(t)
	f.plugin.Exports = nil
	f.target = f.image()
	found, err := f.connect().FindImage(t.Context(), "i")
	if err != nil || found.Platform != "wasi/wasm" || len(found.Modules) != 0 {
		t.Errorf("found %+v, %v", found, err)
	}
}

// A broken manifest or an attestation in an index does not prevent the search from finding the others.
func TestFindImageBesideBroken(t *testing.T) {
	f := newFake(t)
	own := f.image()
	attestation := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("attestation"), Size: 1,
		Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"},
	}
	f.target = f.index(f.json(ocispec.MediaTypeImageManifest, map[string]any{}), attestation, f.index(own))
	found, err := f.connect().FindImage(t.Context(), "i")
	if err != nil || found.Manifest != own.Digest.String() {
		t.Errorf("found %+v, %v", found, err)
	}
}

func TestConnectNowhere(t *testing.T) {
	s, err := Connect(filepath.Join(t.TempDir(), "none.sock"), "namespace")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, _, err = s.Find(t.Context(), "id")
	if err == nil || !strings.Contains(err.Error(), "look up container id: containerd does not answer: ") {
		t.Error(err)
	}
}

func TestMadeOn(t *testing.T) {
	for _, test := range []struct {
		made  []string
		chain string
		want  bool
	}{
		{nil, "sha256:aa", true},
		{[]string{"sha256:aa"}, "sha256:aa", true},
		{[]string{""}, "", true},
		{[]string{"sha256:bb", "sha256:aa"}, "sha256:aa", true},
		{[]string{"sha256:aa"}, "", false},
		{[]string{""}, "sha256:aa", false},
	} {
		if got := (made{parents: test.made}).on(test.chain); got != test.want {
			t.Errorf("%q on %q: %t", test.made, test.chain, got)
		}
	}
}

func TestMapsUsers(t *testing.T) {
	for spec, want := range map[string]bool{
		`{"linux":{"uidMappings":[{"containerID":0,"hostID":1000,"size":1}]}}`: true,
		`{"linux":{}}`: false, `{}`: false, ``: false,
	} {
		if got := mapsUsers(&containers.Container{Spec: &anypb.Any{Value: []byte(spec)}}); got != want {
			t.Errorf("%s: %t", spec, got)
		}
	}
}

func TestRank(t *testing.T) {
	wasm := ocispec.Manifest{Layers: []ocispec.Descriptor{{MediaType: oci.MediaTypeWasm}}}
	order := []candidate{
		{platform: "wasi/wasm"}, {platform: "wasip1/wasm"}, {platform: "linux/wasm"}, {platform: "wasip2/wasm"},
		{platform: native, manifest: wasm}, {platform: "plan9/mips", manifest: wasm},
		{platform: native}, {platform: "plan9/mips"},
	}
	for i := range order[1:] {
		if order[i].rank() >= order[i+1].rank() {
			t.Errorf("%s does not come before %s", order[i].platform, order[i+1].platform)
		}
	}
}

// An image keeps at most mostKept compiled modules; a module that it has already may be kept again.
func TestImageKeepsFewModules(t *testing.T) {
	fake := newFake(t)
	of := fake.blob("manifest", []byte("{}")).Digest
	s := fake.connect()
	fake.labels = map[string]string{"containerd.io/gc.ref.content.config": "another's"}
	for i := range mostKept {
		if full, err := s.isFull(t.Context(), of, keepLabel+"new"); full || err != nil {
			t.Fatalf("with %d: %v, %v", i, full, err)
		}
		fake.labels[fmt.Sprintf("%s%d", keepLabel, i)] = "a blob"
	}
	for name, want := range map[string]bool{"new": true, "0": false} {
		if full, err := s.isFull(t.Context(), of, keepLabel+name); full != want || err != nil {
			t.Errorf("%s: %v, %v", name, full, err)
		}
	}
	if path, err := s.Keep(t.Context(), Target{Image: "image", Digest: of}, "new", nil, ""); path != "" || err != nil {
		t.Errorf("got %q, %v", path, err)
	}
}
