package testguest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
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

func TestFetch(t *testing.T) {
	archive := archiveOf(t, "package/wanted", "content")
	sum := fmt.Sprintf("%x", sha256.Sum256(archive))
	for name, test := range map[string]struct {
		answers  []int // the last one holds for all that follow
		sum      string
		member   string
		want     string // of the error; none if it is empty
		requests int32
	}{
		"fetched":      {[]int{200}, sum, "package/wanted", "", 1},
		"second time":  {[]int{503, 200}, sum, "package/wanted", "", 2},
		"not there":    {[]int{404}, sum, "package/wanted", "404 Not Found", 1},
		"another one":  {[]int{200}, strings.Repeat("0", 64), "package/wanted", "it has sha256 " + sum, 1},
		"without file": {[]int{200}, sum, "package/missing", "it holds no package/missing", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				status := test.answers[min(int(requests.Add(1)), len(test.answers))-1]
				w.WriteHeader(status)
				w.Write(archive)
			}))
			defer registry.Close()
			content, err := archived{url: registry.URL, sha256: test.sum, member: test.member}.fetch()
			if test.want == "" && (err != nil || string(content) != "content") {
				t.Errorf("got %q and error %v", content, err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got error %v, want %q", err, test.want)
			}
			if requests.Load() != test.requests {
				t.Errorf("made %d requests, want %d", requests.Load(), test.requests)
			}
		})
	}
}
