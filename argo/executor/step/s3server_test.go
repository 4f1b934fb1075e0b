package step_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// What stands for the S3 server's address and for the bucket of a run, in templates and in what is compared.
const (
	s3Endpoint = "S3_ENDPOINT"
	s3Bucket   = "S3_BUCKET"
)

const (
	s3Access = "access-1"
	s3Secret = "secret-1"
	s3Region = "us-east-1"
)

// s3Place is the JSON of an S3 location without its key, and what it refers to is in each world.
const s3Place = `"endpoint":"` + s3Endpoint + `","bucket":"` + s3Bucket + `","region":"` + s3Region + `","insecure":true,` +
	`"accessKeySecret":{"name":"s3","key":"access"},"secretKeySecret":{"name":"s3","key":"secret"}`

// inS3 returns the field of an artifact that is kept under a key.
func inS3(key string) string { return `"s3":{` + s3Place + `,"key":"` + key + `"}` }

// s3Server is the S3 server of all scenes, versitygw: its buckets are folders.
type s3Server struct {
	dir     string
	address *url.URL
	cmd     *exec.Cmd
}

// s3 starts the server once. It is stopped by TestMain.
var s3 = sync.OnceValues(startS3)

// startedS3 is the server, if s3 has started it.
var startedS3 atomic.Pointer[s3Server]

func startS3() (*s3Server, error) {
	folders, err := testnode.Tools(context.Background(), "versitygw")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "s3")
	if err != nil {
		return nil, err
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := free.Addr().String()
	free.Close()
	s := &s3Server{dir: dir, address: &url.URL{Scheme: "http", Host: address}}
	if err := errors.Join(os.Mkdir(dir+"/buckets", 0o755), os.Mkdir(dir+"/metadata", 0o755)); err != nil {
		return nil, err
	}
	// Metadata is not kept in extended attributes, which not every file system has.
	s.cmd = exec.Command(folders[0]+"/versitygw", "--port", address, "--region", s3Region, "--health", "/health", "--quiet",
		"posix", "--sidecar", dir+"/metadata", dir+"/buckets")
	s.cmd.Env = []string{"ROOT_ACCESS_KEY=" + s3Access, "ROOT_SECRET_KEY=" + s3Secret}
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	startedS3.Store(s)
	for range 1000 {
		if response, err := http.Get(s.address.String() + "/health"); err == nil {
			response.Body.Close()
			return s, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.New("the S3 server does not answer")
}

// stopS3 stops the server if it runs.
func stopS3() {
	if s := startedS3.Load(); s != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		os.RemoveAll(s.dir)
	}
}

// bucket is the bucket of one run. The run speaks to it through a front of its own.
type bucket struct {
	t         *testing.T
	name      string
	dir       string
	endpoint  string // HOST:PORT of the front
	authority string // its certificate, if it has one
	client    *minio.Client
	requests  atomic.Int64
}

// s3Fault answers the nth request, from 0, in the server's place, or returns false.
type s3Fault func(n int, w http.ResponseWriter, r *http.Request) bool

// newBucket makes a bucket. Each request first goes to fault, if it is not nil. With tls, the front has a certificate.
func newBucket(t *testing.T, fault s3Fault, tls bool) *bucket {
	t.Helper()
	server, err := s3()
	if err != nil {
		t.Fatal(err)
	}
	b := &bucket{t: t, name: "b-" + strings.ToLower(rand.Text())}
	b.dir = filepath.Join(server.dir, "buckets", b.name)
	// The header Host stays as it is: it is signed.
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", server.address.Host },
		ErrorLog: log.New(io.Discard, "", 0), // programs that end abruptly
	}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(b.requests.Add(1)) - 1
		if fault == nil || !fault(n, w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	if tls {
		front.StartTLS()
		b.authority = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}))
	} else {
		front.Start()
	}
	t.Cleanup(front.Close)
	b.endpoint = front.Listener.Addr().String()
	b.client, err = minio.New(server.address.Host, &minio.Options{Creds: credentials.NewStaticV4(s3Access, s3Secret, ""), Region: s3Region})
	if err == nil {
		err = b.client.MakeBucket(t.Context(), b.name, minio.MakeBucketOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// s3Failure answers with an error as S3 has it.
func s3Failure(w http.ResponseWriter, status int, code string) bool {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s, says the test.</Message><Resource>/</Resource><RequestId>1</RequestId></Error>`, code, code)
	return true
}

// s3Cut ends a connection without an answer.
func s3Cut(w http.ResponseWriter) bool {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		conn.Close()
	}
	return true
}

// plain puts the placeholders in the place of what is this bucket's alone.
func (b *bucket) plain(text string) string {
	return strings.NewReplacer(b.endpoint, s3Endpoint, b.name, s3Bucket).Replace(text)
}

// fill puts what is this bucket's in the place of the placeholders.
func (b *bucket) fill(text string) string {
	return strings.NewReplacer(s3Endpoint, b.endpoint, s3Bucket, b.name).Replace(text)
}

// put puts an object into the bucket.
func (b *bucket) put(key string, content []byte) {
	b.t.Helper()
	if _, err := b.client.PutObject(b.t.Context(), b.name, key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

// objects describes all objects: media type and content. What an upload that was broken off has left counts, too.
func (b *bucket) objects() map[string]string {
	b.t.Helper()
	found := map[string]string{}
	if _, err := os.Stat(b.dir); errors.Is(err, fs.ErrNotExist) {
		return found
	}
	for o := range b.client.ListObjectsIter(b.t.Context(), b.name, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			b.t.Fatal(o.Err)
		}
		info, err := b.client.StatObject(b.t.Context(), b.name, o.Key, minio.StatObjectOptions{})
		if err != nil {
			b.t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(b.dir, o.Key))
		if err != nil && !strings.HasSuffix(o.Key, "/") {
			b.t.Fatal(err)
		}
		found[o.Key] = fmt.Sprintf("%s %v %s", info.ContentType, info.UserMetadata, describe(data))
		if !strings.HasPrefix(describe(data), "tar:") && !strings.HasPrefix(describe(data), "zip:") {
			found[o.Key] += " " + info.ETag // it says in which parts an object came
		} else if _, parts, ok := strings.Cut(info.ETag, "-"); ok {
			found[o.Key] += " in parts " + parts
		}
	}
	for u := range b.client.ListIncompleteUploads(b.t.Context(), b.name, "", true) {
		found[u.Key+" (incomplete)"] = ""
	}
	return found
}

// describe describes a file. Of an archive it lists the entries with all that is known of them but the times of those in
// tarballs: files that are written anew for each run have others.
func describe(data []byte) string {
	var list strings.Builder
	if archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data))); err == nil {
		for _, f := range archive.File {
			r, err := f.Open()
			if err != nil {
				return err.Error()
			}
			content, err := io.ReadAll(r)
			f.CompressedSize64, f.UncompressedSize64, f.CRC32 = 0, 0, 0 // they follow from the content
			fmt.Fprintf(&list, "\n %s, %s, %v, %+v", f.Name, short(content), err, f.FileHeader)
		}
		return "zip:" + list.String()
	}
	compressed, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return short(data)
	}
	archive := tar.NewReader(compressed)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			return "tar:" + list.String()
		}
		if err != nil {
			return "gzip: " + list.String() + err.Error()
		}
		content, err := io.ReadAll(archive)
		delete(h.PAXRecords, "mtime")
		h.ModTime, h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}, time.Time{}
		fmt.Fprintf(&list, "\n %s, %s, %v, %+v", h.Name, short(content), err, *h)
	}
}

// tgz is a file as the emissary leaves it for an artifact.
func tgz(entries ...tar.Header) string {
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	archive := tar.NewWriter(compressed)
	for _, h := range entries {
		content := h.PAXRecords["content"]
		h.PAXRecords, h.Size = nil, int64(len(content))
		if err := archive.WriteHeader(&h); err != nil {
			panic(err)
		}
		if _, err := io.WriteString(archive, content); err != nil {
			panic(err)
		}
	}
	if err := errors.Join(archive.Close(), compressed.Close()); err != nil {
		panic(err)
	}
	return out.String()
}

// tarFile is a file for tgz.
func tarFile(name, content string) tar.Header {
	return tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, ModTime: time.Unix(1e9, 0), PAXRecords: map[string]string{"content": content}}
}

// tarDir is a folder for tgz.
func tarDir(name string) tar.Header {
	return tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir, ModTime: time.Unix(1e9, 0)}
}

// tarLink is a symbolic link for tgz.
func tarLink(name, target string) tar.Header {
	return tar.Header{Name: name, Linkname: target, Mode: 0o777, Typeflag: tar.TypeSymlink, ModTime: time.Unix(1e9, 0)}
}
