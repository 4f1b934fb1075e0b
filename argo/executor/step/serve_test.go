package step

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
)

// An object that a key made of a customer's secret encrypts is read while main runs, by that key.
func TestServedByCustomerKey(t *testing.T) {
	store, err := tests3.StartMinio()
	t.Cleanup(store.Stop)
	if err != nil {
		t.Fatal(err)
	}
	client := store.Client(t).Client
	content := strings.Repeat("0123456789", 100<<10)
	encryption := encrypt.DefaultPBKDF([]byte("secret"), []byte("bucketin"))
	if err := client.MakeBucket(t.Context(), "bucket", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.PutObject(t.Context(), "bucket", "in", strings.NewReader(content), int64(len(content)), minio.PutObjectOptions{ServerSideEncryption: encryption}); err != nil {
		t.Fatal(err)
	}
	s, _ := newStep(t, `{"inputs":{"artifacts":[{"name":"a","path":"/in/a","archive":{"none":{}},"s3":{"endpoint":"`+store.Address+`",`+
		`"bucket":"bucket","region":"`+tests3.Region+`","key":"in","accessKeySecret":{"name":"s","key":"access"},"secretKeySecret":{"name":"s","key":"secret"},`+
		`"caSecret":{"name":"s","key":"ca"},"encryptionOptions":{"enableEncryption":true,"serverSideCustomerKeySecret":{"name":"s","key":"customer"}}}}]},"container":{}}`)
	mustDir(t, s.Root+mainFiles+"/in")
	mustDir(t, s.Root+secrets+"/s")
	for name, text := range map[string]string{ // the first as init leaves it
		mainFiles + "/in/a": "", secrets + "/s/access": tests3.Access, secrets + "/s/secret": tests3.Secret, secrets + "/s/ca": store.Authority, secrets + "/s/customer": "secret",
	} {
		if err := os.WriteFile(s.Root+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := s.planner()
	if err != nil {
		t.Fatal(err)
	}
	as, err := p.look(t.Context(), s.template.InputArtifacts[0])
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	if _, err := as.file.Object.ReadAt(t.Context(), got, 0); err != nil || string(got) != content {
		t.Errorf("read other bytes, or %v", err)
	}
}

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
