package executor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// releases are the releases of Argo Workflows whose executor is known, without the last number: a last
// number stands for repairs only.
var releases = []string{"v3.6", "v3.7", "v4.0"}

// tag is a release's tag, as upstream's images and their mirrors have it.
var tag = regexp.MustCompile(`^(v[0-9]{1,3}\.[0-9]{1,3})\.[0-9]{1,3}$`)

// Release returns the release of Argo whose executor an image holds, such as v4.0.2. It reads only the
// image's name, which ends with argoexec:TAG for upstream's image and for each mirror of it. The error says
// what about the name is not known.
func Release(image string) (string, error) {
	name, _, _ := strings.Cut(image, "@")
	slash := strings.LastIndexByte(name, '/')
	repository, version, hasTag := strings.Cut(name[slash+1:], ":")
	if !hasTag || repository != "argoexec" {
		return "", fmt.Errorf("image %.200q is not named argoexec:TAG", image)
	}
	match := tag.FindStringSubmatch(version)
	if match == nil {
		return "", fmt.Errorf("tag %.100q of image argoexec is not a release of Argo", version)
	}
	if slices.Contains(releases, match[1]) {
		return version, nil
	}
	return "", fmt.Errorf("executor %s is not known: known are those of %s", version, strings.Join(releases, ", "))
}
