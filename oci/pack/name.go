package pack

import (
	"errors"
	"fmt"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
)

// Name returns an image's whole name as containerd, CRI and nerdctl know it: hello is
// docker.io/library/hello:latest. A digest cannot be given, because the content decides on it.
func Name(text string) (string, error) {
	whole, err := wholeName(text)
	if err != nil {
		return "", fmt.Errorf("%q is not the name of an image, as in registry.example.com/team/app:v1: %w", text, err)
	}
	return whole, nil
}

// wholeName asks both libraries that read the name later: containerd's, and the one that pushes.
func wholeName(text string) (string, error) {
	parsed, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return "", err
	}
	if _, ok := parsed.(reference.Digested); ok {
		return "", errors.New("it has a digest")
	}
	whole := reference.TagNameOnly(parsed).String()
	_, err = name.NewTag(whole)
	return whole, err
}
