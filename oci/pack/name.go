package pack

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// Name returns an image's full name as containerd, CRI and nerdctl use it: hello is
// docker.io/library/hello:latest. The name cannot have a digest, because the content decides the digest.
func Name(text string) (string, error) {
	whole, err := wholeName(text)
	if err != nil {
		return "", fmt.Errorf("%q is not the name of an image, as in registry.example.com/team/app:v1: %w", text, err)
	}
	return whole, nil
}

// wholeName avoids github.com/distribution/reference, whose regular expressions would cost each start of this
// program half a millisecond, even if no image is named. It refuses names that go-containerregistry accepts
// and containerd does not.
func wholeName(text string) (string, error) {
	tag, err := name.NewTag(text)
	if err != nil {
		return "", err
	}
	if strings.HasSuffix(text, ":") {
		return "", errors.New("its tag is empty")
	}
	if err := checkHost(tag.RegistryStr()); err != nil {
		return "", err
	}
	for part := range strings.SplitSeq(tag.RepositoryStr(), "/") {
		if !alphanumericEnds(part) {
			return "", fmt.Errorf("the part %q of it does not begin and end with a letter or a digit", part)
		}
	}
	if strings.ContainsAny(tag.TagStr()[:1], ".-") {
		return "", fmt.Errorf("its tag %q begins with %q", tag.TagStr(), tag.TagStr()[:1])
	}
	whole := tag.Name()
	if rest, ok := strings.CutPrefix(whole, name.DefaultRegistry+"/"); ok {
		whole = "docker.io/" + rest
	}
	return whole, nil
}

// checkHost refuses a registry that is not a host name or an address, with or without a port.
func checkHost(registry string) error {
	if strings.HasPrefix(registry, "[") {
		return nil // IPv6; a URL parser has checked it
	}
	host, _, _ := strings.Cut(registry, ":")
	for label := range strings.SplitSeq(host, ".") {
		if !alphanumericEnds(label) {
			return fmt.Errorf("its registry %q is not the name of a host", registry)
		}
	}
	return nil
}

func alphanumericEnds(word string) bool {
	return word != "" && isAlphanumeric(word[0]) && isAlphanumeric(word[len(word)-1])
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
