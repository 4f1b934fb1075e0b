// Package testbucket starts a real S3 server, versitygw, for tests. No shipped binary imports it.
package testbucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

const (
	access = "access-1"
	secret = "secret-1"
	region = "us-east-1"
)

// Server is an S3 server. Its buckets are folders of Dir.
type Server struct {
	Dir     string
	Address string // HOST:PORT
}

// Start starts a server, and stops it at the end of the test.
func Start(t testing.TB) *Server {
	t.Helper()
	folders, err := testnode.Tools(t.Context(), "versitygw")
	if err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Dir: t.TempDir(), Address: free.Addr().String()}
	free.Close()
	metadata := t.TempDir()
	// Metadata is not kept in extended attributes, which not every file system has.
	cmd := exec.Command(folders[0]+"/versitygw", "--port", s.Address, "--region", region, "--health", "/health", "--quiet",
		"posix", "--sidecar", metadata, s.Dir)
	cmd.Env = []string{"ROOT_ACCESS_KEY=" + access, "ROOT_SECRET_KEY=" + secret}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := poll.Until(ctx, func() (bool, error) {
		response, err := http.Get("http://" + s.Address + "/health")
		if err != nil {
			return false, nil
		}
		return true, response.Body.Close()
	}); err != nil {
		t.Fatalf("the S3 server does not answer: %v", err)
	}
	return s
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
		Creds: credentials.NewStaticV4(access, secret, ""), Region: region, Transport: transport, MaxRetries: 1,
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
