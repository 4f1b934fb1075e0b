package step_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
)

// What stands for the S3 server's address and for the bucket of a run, in templates and in what is compared.
const (
	s3Endpoint = "S3_ENDPOINT"
	s3Bucket   = "S3_BUCKET"
)

// s3Place is the JSON of an S3 location without its key, and what it refers to is in each world.
const s3Place = `"endpoint":"` + s3Endpoint + `","bucket":"` + s3Bucket + `","region":"` + tests3.Region + `","insecure":true,` +
	`"accessKeySecret":{"name":"s3","key":"access"},"secretKeySecret":{"name":"s3","key":"secret"}`

// inS3 returns the field of an artifact that is kept under a key.
func inS3(key string) string { return `"s3":{` + s3Place + `,"key":"` + key + `"}` }

// The servers of all scenes are started once, when they are needed. They are stopped by TestMain.
var (
	s3 = sync.OnceValues(func() (*tests3.Server, error) {
		s, err := tests3.Start()
		startedS3.Store(s)
		return s, err
	})
	s3Encrypting = sync.OnceValues(func() (*tests3.Minio, error) {
		s, err := tests3.StartMinio()
		startedMinio.Store(s)
		return s, err
	})

	startedS3    atomic.Pointer[tests3.Server]
	startedMinio atomic.Pointer[tests3.Minio]
)

func stopS3() {
	if s := startedS3.Load(); s != nil {
		s.Stop()
	}
	if s := startedMinio.Load(); s != nil {
		s.Stop()
	}
}

// bucket is the bucket of one run. The run speaks to it through a front of its own.
type bucket struct {
	t         *testing.T
	name      string
	endpoint  string // HOST:PORT of the front
	authority string // its certificate, if it has one
	client    *minio.Client
	requests  atomic.Int64
	encrypted encryption // nil for none
}

// encryption returns by which key a store encrypts an object of a bucket.
type encryption func(bucket, key string) encrypt.ServerSide

// of is for the tests' own requests.
func (e encryption) of(bucket, key string) encrypt.ServerSide {
	if e == nil {
		return nil
	}
	return e(bucket, key)
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
	return newBucketOf(t, &url.URL{Scheme: "http", Host: server.Address}, http.DefaultTransport, fault, tls)
}

// newEncryptedBucket makes a bucket of a server that can encrypt.
func newEncryptedBucket(t *testing.T, fault s3Fault, e encryption) *bucket {
	t.Helper()
	server, err := s3Encrypting()
	if err != nil {
		t.Fatal(err)
	}
	transport := server.Transport()
	t.Cleanup(transport.CloseIdleConnections)
	b := newBucketOf(t, &url.URL{Scheme: "https", Host: server.Address}, transport, fault, true)
	b.encrypted = e
	return b
}

func newBucketOf(t *testing.T, server *url.URL, transport http.RoundTripper, fault s3Fault, tls bool) *bucket {
	t.Helper()
	b := &bucket{t: t, name: "b-" + strings.ToLower(rand.Text())}
	// The header Host stays as it is: it is signed.
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = server.Scheme, server.Host },
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // programs that end abruptly
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
	var err error
	b.client, err = minio.New(server.Host, &minio.Options{
		Creds: credentials.NewStaticV4(tests3.Access, tests3.Secret, ""), Region: tests3.Region, Secure: server.Scheme == "https", Transport: transport,
	})
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
	if _, err := b.client.PutObject(b.t.Context(), b.name, key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{ServerSideEncryption: b.encrypted.of(b.name, key)}); err != nil {
		b.t.Fatal(err)
	}
}

// objects describes all objects: media type and content. What an upload that was broken off has left counts, too.
func (b *bucket) objects() map[string]string {
	b.t.Helper()
	found := map[string]string{}
	if exists, err := b.client.BucketExists(b.t.Context(), b.name); err != nil {
		b.t.Fatal(err)
	} else if !exists {
		return found
	}
	for o := range b.client.ListObjectsIter(b.t.Context(), b.name, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			b.t.Fatal(o.Err)
		}
		info, data := b.get(o.Key)
		what := describe(data)
		found[o.Key] = fmt.Sprintf("%s %v %s", info.ContentType, info.UserMetadata, what) + encryptionOf(info)
		if !strings.HasPrefix(what, "tar:") && !strings.HasPrefix(what, "zip:") && b.encrypted == nil {
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

// encryptionOf describes how the store has encrypted an object.
func encryptionOf(o minio.ObjectInfo) string {
	text := ""
	for _, name := range slices.Sorted(maps.Keys(o.Metadata)) {
		if strings.HasPrefix(name, "X-Amz-Server-Side-Encryption") && !strings.HasSuffix(name, "-Md5") { // of the key
			text += fmt.Sprint(" ", name, o.Metadata[name])
		}
	}
	return text
}

// get returns what is known of an object, and its content.
func (b *bucket) get(key string) (minio.ObjectInfo, []byte) {
	b.t.Helper()
	object, err := b.client.GetObject(b.t.Context(), b.name, key, minio.GetObjectOptions{ServerSideEncryption: b.encrypted.of(b.name, key)})
	if err != nil {
		b.t.Fatal(err)
	}
	defer object.Close()
	info, err := object.Stat()
	if err != nil {
		b.t.Fatal(err)
	}
	data, err := io.ReadAll(object)
	if err != nil {
		b.t.Fatal(err)
	}
	return info, data
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
