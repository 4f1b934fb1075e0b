package store

import (
	"encoding/json"
	"testing"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/anypb"
)

// criContainer returns a container as CRI makes it (internal/cri/store/container/metadata.go).
func criContainer(id digest.Digest, image map[string]string) *containers.Container {
	value, err := json.Marshal(map[string]any{"Version": "v1", "Metadata": map[string]any{
		"ID": "c", "Config": map[string]any{"image": image, "metadata": map[string]string{"name": "c"}}, "ImageRef": id,
	}})
	if err != nil {
		panic(err)
	}
	return &containers.Container{ID: "c", Extensions: map[string]*anypb.Any{criExtension: {Value: value}}}
}

func TestAskedOfCRI(t *testing.T) {
	id := digest.FromString("config")
	pinned := "example.com/app@" + digest.FromString("manifest").String()
	for name, test := range map[string]struct {
		image map[string]string
		want  string
	}{
		"a kubelet":                    {map[string]string{"image": id.String(), "user_specified_image": "example.com/app:1"}, "example.com/app:1"},
		"a kubelet, short":             {map[string]string{"image": id.String(), "user_specified_image": "app"}, "docker.io/library/app:latest"},
		"a kubelet, by digest":         {map[string]string{"image": id.String(), "user_specified_image": pinned}, pinned},
		"a kubelet, by tag and digest": {map[string]string{"image": id.String(), "user_specified_image": "example.com/app:1@" + digest.FromString("manifest").String()}, pinned},
		"a kubelet, in 1.7":            {map[string]string{"image": id.String()}, ""},
		"a part of an id":              {map[string]string{"image": id.Encoded()[:12]}, ""},
		"crictl":                       {map[string]string{"image": "example.com/team/app:1"}, "example.com/team/app:1"},
		"crictl, no registry":          {map[string]string{"image": "team/app:1"}, "docker.io/team/app:1"},
		"no name":                      {map[string]string{"image": "not a name"}, ""},
	} {
		got, err := askedOfCRI(criContainer(id, test.image))
		if err != nil || got.config != id || got.name != test.want {
			t.Errorf("%s: %+v, %v; want %q", name, got, err, test.want)
		}
	}
	if got, err := askedOfCRI(&containers.Container{ID: "c", Labels: map[string]string{criExtension: "{}"}}); err != nil || got != (asked{}) {
		t.Errorf("a container that CRI has not made: %+v, %v", got, err)
	}
	for _, value := range []string{"", "{}", `{"Metadata":{"ImageRef":"sha256:x"}}`, `{"Metadata":{"Config":{"image":1}}}`} {
		c := &containers.Container{ID: "c", Extensions: map[string]*anypb.Any{criExtension: {Value: []byte(value)}}}
		if got, err := askedOfCRI(c); err == nil {
			t.Errorf("%q: %+v", value, got)
		}
	}
}
