package request

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// checkBucket returns an error for what no store takes as the name of a bucket.
func checkBucket(name string) error {
	if len(name) < 3 || len(name) > 63 || strings.Trim(name, nameRunes) != "" || strings.Contains(name, "..") {
		return fmt.Errorf("%.200q is no name of a bucket", name)
	}
	return nil
}

// CheckBucket returns an error for what is not the name of a bucket by the rules of S3, which are narrower than those of
// other stores. Who lists buckets can rely on it: to no store is such a name a path, a host, or a name of another bucket.
func CheckBucket(name string) error {
	if err := checkBucket(name); err != nil {
		return err
	}
	_, notAddress := netip.ParseAddr(name)
	if !slices.ContainsFunc(strings.Split(name, "."), isNoLabel) && notAddress != nil && !isOther(name) {
		return nil
	}
	return fmt.Errorf("%.200q is no name of a bucket by the rules of S3: lower-case letters and digits, with '.' and '-' between them, and no access point", name)
}

const labelRunes = "abcdefghijklmnopqrstuvwxyz0123456789-"

func isNoLabel(part string) bool {
	return strings.Trim(part, labelRunes) != "" || part != strings.Trim(part, "-") || part == ""
}

// isOther reports whether a name is that of something else than a bucket: by an access point and the like, Amazon's store
// finds a bucket of another name.
func isOther(name string) bool {
	isSuffix := func(suffix string) bool { return strings.HasSuffix(name, suffix) }
	return strings.HasPrefix(name, "xn--") || slices.ContainsFunc([]string{"-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"}, isSuffix)
}
