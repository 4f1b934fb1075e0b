package pack

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// Name returns an image's whole name as containerd, CRI and nerdctl know it: hello is
// docker.io/library/hello:latest. A digest cannot be given, because the content decides on it.
func Name(text string) (string, error) {
	tag, err := name.NewTag(text)
	if err != nil {
		return "", fmt.Errorf("%q is not the name of an image, as in registry.example.com/team/app:v1: %w", text, err)
	}
	whole := tag.Name()
	if rest, ok := strings.CutPrefix(whole, name.DefaultRegistry+"/"); ok {
		whole = "docker.io/" + rest
	}
	return whole, nil
}
