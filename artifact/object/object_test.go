package object_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testbucket"
	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
)

func newCache(t testing.TB, limit int64) *object.Cache {
	t.Helper()
	c, err := object.NewCache(limit)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func random(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.Read(p)
	return p
}

func TestStat(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	put := testbucket.Put(t, b, "a/b", []byte("hello"))
	if put.Size != 5 || put.ETag != "5d41402abc4b2a76b9719d911017c592" || put.Modified.IsZero() {
		t.Errorf("%+v", put)
	}
	for info, err := range b.List(t.Context(), "a/") {
		if err != nil || info.Key != put.Key || info.Size != put.Size || info.ETag != put.ETag {
			t.Errorf("listed %+v, %v, want %+v", info, err, put)
		}
	}
	var response minio.ErrorResponse
	if _, err := b.Stat(t.Context(), "none"); !errors.As(err, &response) || response.Code != "NoSuchKey" {
		t.Error(err)
	}
	b.Name = "no-such-bucket"
	for _, err := range b.List(t.Context(), "a/") {
		if !errors.As(err, &response) || response.Code != "NoSuchBucket" {
			t.Error(err)
		}
	}
}

// A store refuses a HEAD request by nothing but a status, as Amazon's does without a customer's key. The error has the
// store's code.
func TestStatIsRefused(t *testing.T) {
	store := testbucket.Start(t)
	own := store.Bucket(t)
	testbucket.Put(t, own, "key", []byte("hello"))
	b := store.Front(t, own, func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, "<Error><Code>InvalidRequest</Code><Message>the parameters are missing</Message></Error>") // not to HEAD
		return true
	})
	_, err := b.Stat(t.Context(), "key")
	if err == nil || err.Error() != "read s3://"+b.Name+"/key: InvalidRequest: the parameters are missing" {
		t.Error(err)
	}
}

func TestReadAt(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	content := random(3*object.BlockSize + 17)
	o := newCache(t, 4<<20).Open(b, testbucket.Put(t, b, "key", content))
	defer o.Close()
	for _, at := range [][2]int64{{0, 1}, {object.BlockSize - 1, 2}, {0, int64(len(content))}, {3 * object.BlockSize, 100}, {int64(len(content)), 1}, {1 << 40, 1}, {5, 0}} {
		p := make([]byte, at[1])
		n, err := o.ReadAt(t.Context(), p, at[0])
		want := []byte{}
		if at[0] < int64(len(content)) {
			want = content[at[0]:min(at[0]+at[1], int64(len(content)))]
		}
		if !bytes.Equal(p[:n], want) || (err == io.EOF) != (len(want) < len(p)) {
			t.Errorf("%v: %d bytes, %v", at, n, err)
		}
	}
	if s := o.Stats(); s.Moved != int64(len(content)) {
		t.Errorf("%+v", s)
	}
}

// An object that is replaced is an error, never a mixture.
func TestReplaced(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	o := newCache(t, 4<<20).Open(b, testbucket.Put(t, b, "key", random(1<<20)))
	defer o.Close()
	if _, err := o.ReadAt(t.Context(), make([]byte, 1), 0); err != nil {
		t.Fatal(err)
	}
	testbucket.Put(t, b, "key", random(1<<20))
	if _, err := o.ReadAt(t.Context(), make([]byte, 1), 0); err != nil {
		t.Errorf("what is in the cache: %v", err)
	}
	if _, err := o.ReadAt(t.Context(), make([]byte, 1), 1<<19); !errors.Is(err, object.ErrReplaced) {
		t.Error(err)
	}
}

// The store's own checksum of an object of one part is right for what is read.
func TestVerifiedByStore(t *testing.T) {
	b := testbucket.Start(t).Bucket(t)
	info := testbucket.Put(t, b, "key", random(3*object.BlockSize+17))
	if info.Sum.Value == nil {
		t.Fatalf("%+v", info)
	}
	o := newCache(t, 4<<20).Open(b, info)
	defer o.Close()
	if _, err := o.ReadAt(t.Context(), make([]byte, info.Size), 0); err != nil || !o.Verified() {
		t.Errorf("%v, verified: %v", err, o.Verified())
	}
	t.Logf("verified by %s", info.Sum.Name)
}

// A store may give no ETag: versitygw does not for a file that has been put into a bucket's folder.
func TestWithoutETag(t *testing.T) {
	server := testbucket.Start(t)
	b := server.Bucket(t)
	name := filepath.Join(server.Buckets, b.Name, "file")
	if err := os.WriteFile(name, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	cache := newCache(t, 1<<20)
	read := func(info object.Info) (string, error) {
		o := cache.Open(b, info)
		defer o.Close()
		p := make([]byte, 10)
		n, err := o.ReadAt(t.Context(), p, 0)
		return string(p[:n]), err
	}
	info, err := b.Stat(t.Context(), "file")
	if err != nil || info.ETag != "" {
		t.Fatalf("%+v, %v", info, err)
	}
	if got, err := read(info); got != "content" || err != io.EOF {
		t.Errorf("read %q, %v", got, err)
	}
	for listed, err := range b.List(t.Context(), "fi") {
		if err != nil {
			t.Fatal(err)
		}
		if got, err := read(listed); got != "content" || err != io.EOF {
			t.Errorf("of the list, read %q, %v", got, err)
		}
	}
	if err := os.Chtimes(name, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	info.Modified = info.Modified.Add(-time.Hour) // nothing of it is in the cache
	if got, err := read(info); !errors.Is(err, object.ErrReplaced) {
		t.Errorf("read %q of a file that was replaced, %v", got, err)
	}
}
