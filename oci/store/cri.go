package store

import (
	"encoding/json"
	"fmt"
	"strings"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
)

// criExtension is the extension in which containerd's CRI plugin keeps its metadata of a container
// (internal/cri/labels, and internal/cri/store/container/metadata.go; in 1.7 pkg/cri). Only clients of
// containerd write there, so nothing in it comes from an image.
const criExtension = "io.cri-containerd.container.metadata"

// asked is the image that a pod asked CRI for. It is empty for a container that CRI has not made.
type asked struct {
	// config is the digest of the configuration of the image that CRI chose.
	config digest.Digest
	// name is the image's full name. It is empty if CRI was given an id, as by a kubelet, and containerd did
	// not record the name beside it: containerd records it from 2.0 on.
	name string
}

// askedOfCRI reads CRI's metadata of a container. The annotation io.kubernetes.cri.image-name is less
// precise: without a name from a kubelet it is the first name of any image with the same configuration; in
// containerd 1.7 it always is.
func askedOfCRI(c *containers.Container) (asked, error) {
	extension, ok := c.Extensions[criExtension]
	if !ok {
		return asked{}, nil
	}
	var kept struct {
		Metadata struct {
			Config struct {
				Image struct {
					Image         string `json:"image"`
					UserSpecified string `json:"user_specified_image"`
				} `json:"image"`
			}
			ImageRef digest.Digest
		}
	}
	if err := json.Unmarshal(extension.Value, &kept); err != nil {
		return asked{}, fmt.Errorf("read what CRI keeps of it: %w", err)
	}
	m := kept.Metadata
	if err := m.ImageRef.Validate(); err != nil {
		return asked{}, fmt.Errorf("read what CRI keeps of it: image %q: %w", m.ImageRef, err)
	}
	a := asked{config: m.ImageRef, name: fullName(m.Config.Image.UserSpecified)}
	if a.name == "" && !isID(m.Config.Image.Image, m.ImageRef) {
		a.name = fullName(m.Config.Image.Image)
	}
	return a, nil
}

// isID reports whether CRI was given an image's id, possibly truncated, with or without its algorithm.
func isID(image string, id digest.Digest) bool {
	return image != "" && (strings.HasPrefix(id.String(), image) || strings.HasPrefix(id.Encoded(), image))
}

// fullName returns the name under which CRI keeps an image that a user gave by this name, "" if the name is
// not valid. In a name with a tag and a digest only the digest counts (ParseDockerRef in
// github.com/distribution/reference, which would cost each start of this program half a millisecond).
func fullName(image string) string {
	ref, err := name.ParseReference(image)
	if err != nil {
		return ""
	}
	whole := ref.Name()
	if rest, ok := strings.CutPrefix(whole, name.DefaultRegistry+"/"); ok {
		whole = "docker.io/" + rest
	}
	return whole
}
