package step

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
)

// A store lists files of a folder without end. What is kept of them has a bound.
func TestFolderWithoutEnd(t *testing.T) {
	pages, long := 0, strings.Repeat("x", 900)
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !r.URL.Query().Has("list-type") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		pages++
		fmt.Fprint(w, `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>`)
		for i := range 1000 {
			fmt.Fprintf(w, `<Contents><Key>in/%s%d/%d</Key><Size>1</Size><ETag>"1"</ETag><LastModified>2006-01-02T15:04:05Z</LastModified></Contents>`, long, pages, i)
		}
		fmt.Fprint(w, `</ListBucketResult>`)
	}))
	defer store.Close()
	s, _ := newStep(t, `{"inputs":{"artifacts":[{"name":"a","path":"/in/a","archive":{"none":{}},"s3":{"endpoint":"`+store.Listener.Addr().String()+`",`+
		`"bucket":"bucket","region":"r","insecure":true,"key":"in","accessKeySecret":{"name":"s","key":"a"},"secretKeySecret":{"name":"s","key":"a"}}}]},"container":{}}`)
	mustDir(t, s.Root+mainFiles+"/in/a") // as init leaves it
	mustDir(t, s.Root+secrets+"/s")
	if err := os.WriteFile(s.Root+secrets+"/s/a", []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := s.planner()
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = p.look(t.Context(), s.template.InputArtifacts[0])
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "too many files to be read while main runs") {
		t.Errorf("got %v", err)
	}
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 3*object.MaxList {
		t.Errorf("after %d pages the heap has grown by %d bytes", pages, grown)
	}
}
