// Package testbucket starts an S3 server for tests. No shipped binary imports it.
package testbucket

import (
	"bytes"
	"crypto/rand"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
)

// Server is an S3 server.
type Server struct{ *tests3.Server }

// Start starts a server, and stops it at the end of the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := tests3.Start()
	t.Cleanup(s.Stop)
	if err != nil {
		t.Fatal(err)
	}
	return &Server{s}
}

// Core returns a client of the store at an address, which may be that of a proxy, as package object wants it.
func Core(t testing.TB, address string) *minio.Core {
	t.Helper()
	transport, err := minio.DefaultTransport(false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.CloseIdleConnections)
	core, err := minio.NewCore(address, &minio.Options{
		Creds: credentials.NewStaticV4(tests3.Access, tests3.Secret, ""), Region: tests3.Region, Transport: transport, MaxRetries: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return core
}

// Bucket makes a bucket.
func (s *Server) Bucket(t testing.TB) object.Bucket {
	t.Helper()
	b := object.Bucket{Client: Core(t, s.Address), Name: "b-" + strings.ToLower(rand.Text())}
	if err := b.Client.MakeBucket(t.Context(), b.Name, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// Put puts an object in one part, and returns what the store says of it.
func Put(t testing.TB, b object.Bucket, key string, content []byte) object.Info {
	t.Helper()
	return PutFrom(t, b, key, bytes.NewReader(content), int64(len(content)))
}

// PutFrom puts an object in one part.
func PutFrom(t testing.TB, b object.Bucket, key string, content io.Reader, size int64) object.Info {
	t.Helper()
	if _, err := b.Client.Client.PutObject(t.Context(), b.Name, key, content, size, minio.PutObjectOptions{DisableMultipart: true}); err != nil {
		t.Fatal(err)
	}
	info, err := b.Stat(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// Front returns the bucket as it is behind a proxy. Each request first goes to fault, which answers in the place of the
// store or returns false.
func (s *Server) Front(t testing.TB, b object.Bucket, fault func(http.ResponseWriter, *http.Request) bool) object.Bucket {
	t.Helper()
	// The header Host stays as it is: it is signed.
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", s.Address },
		ErrorLog: log.New(io.Discard, "", 0), // requests that are given up
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fault(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	front.Config.ErrorLog = proxy.ErrorLog
	t.Cleanup(front.Close)
	b.Client = Core(t, front.Listener.Addr().String())
	return b
}
