package testguest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

func archiveOf(t *testing.T, member, content string) []byte {
	t.Helper()
	var buffer bytes.Buffer
	zipped := gzip.NewWriter(&buffer)
	members := tar.NewWriter(zipped)
	for _, name := range []string{"package/other", member} {
		if err := members.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := members.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := members.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func TestExtract(t *testing.T) {
	archive := archiveOf(t, "package/wanted", "content")
	sum := fmt.Sprintf("%x", sha256.Sum256(archive))
	for name, test := range map[string]struct {
		sum    string
		member string
		want   string // the wanted error; none if it is empty
	}{
		"there":        {sum, "package/wanted", ""},
		"another one":  {strings.Repeat("0", 64), "package/wanted", "it has sha256 " + sum},
		"without file": {sum, "package/missing", "it holds no package/missing"},
	} {
		content, err := packaged{sha256: test.sum, member: test.member}.extract(archive)
		if test.want == "" && (err != nil || string(content) != "content") {
			t.Errorf("%s: got %q and error %v", name, content, err)
		}
		if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got error %v, want %q", name, err, test.want)
		}
	}
}
