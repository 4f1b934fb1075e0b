package pack

import (
	"errors"
	"fmt"
	"strings"

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

// wholeName does without github.com/distribution/reference, whose expressions would cost each start
// of this program half a millisecond, also where no image is named. What go-containerregistry lets
// through and containerd does not is refused here.
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

// checkHost refuses what is no host with or without a port, nor an address.
func checkHost(registry string) error {
	if strings.HasPrefix(registry, "[") {
		return nil // IPv6, which a URL parser has read
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
