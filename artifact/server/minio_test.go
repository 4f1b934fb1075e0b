package server

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testmount"
	"github.com/wasmshim/containerd-shim-wasm/artifact/mount"
	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// What a container writes is stored encrypted as its pod asks for it, and another reads it: small files, files in parts,
// folders and tarballs.
func TestEncryption(t *testing.T) {
	key := bytes.Repeat([]byte("k"), 32)
	for _, tc := range []struct {
		option        string
		header, value string // of the object in the store
	}{
		{"style=path", "X-Amz-Server-Side-Encryption", ""},
		{"sse=s3", "X-Amz-Server-Side-Encryption", "AES256"},
		{"sse=kms", "X-Amz-Server-Side-Encryption", "aws:kms"},
		{"sse=kms:" + tests3.KMSKey, "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", "arn:aws:kms:" + tests3.KMSKey},
		{"sse=c", "X-Amz-Server-Side-Encryption-Customer-Algorithm", "AES256"},
	} {
		t.Run(tc.option, func(t *testing.T) {
			s := newStore(t)
			artifact := func(text string, more ...string) control.ServedArtifact {
				options := "?" + strings.Join(append(more, tc.option), "&")
				a := s.artifact(t, strings.Replace(text, "OPTIONS", options, 1))
				if tc.option == "sse=c" {
					a.Access.CustomerKey = key
				}
				return a
			}
			small, large, first, second := noise(10), noise(mount.PartSize+5), noise(1), noise(300<<10)
			c := serve(t, artifact("/small/x -> s3://BUCKET/smallOPTIONS"), artifact("/large/x -> s3://BUCKET/largeOPTIONS"),
				artifact("/tree/ -> s3://BUCKET/tree/OPTIONS"), artifact("/tgz -> s3://BUCKET/tgzOPTIONS", "archive=tgz"))
			write(t, c.mounts[0]+"/x", small)
			write(t, c.mounts[1]+"/x", large)
			for _, dir := range c.mounts[2:] {
				write(t, dir+"/first", first)
				write(t, dir+"/d/second", second)
			}
			if err := c.Finish(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"small", "large", "tree/first", "tree/d/second", "tgz"} {
				options := minio.StatObjectOptions{}
				if tc.option == "sse=c" {
					options.ServerSideEncryption, _ = encrypt.NewSSEC(key)
				}
				info, err := s.client.StatObject(t.Context(), s.bucket, name, options)
				if got := info.Metadata.Get(tc.header); err != nil || got != tc.value {
					t.Errorf("%s: %s is %q, want %q, %v", name, tc.header, got, tc.value, err)
				}
			}
			in := serve(t, artifact("s3://BUCKET/smallOPTIONS -> /in/small"), artifact("s3://BUCKET/largeOPTIONS -> /in/large"),
				artifact("s3://BUCKET/tree/OPTIONS -> /in/tree"), artifact("s3://BUCKET/tgzOPTIONS -> /in/tgz"))
			expectFile(t, in.mounts[0], small)
			expectFile(t, in.mounts[1], large)
			expectFile(t, in.mounts[2]+"/first", first)
			expectFile(t, in.mounts[2]+"/d/second", second)
			expectTarball(t, in.mounts[3], map[string][]byte{"tgz/first": first, "tgz/d/second": second})
			if in.log.Len() > 0 {
				t.Errorf("logged: %s", &in.log)
			}
		})
	}
}

func expectTarball(t *testing.T, name string, want map[string][]byte) {
	t.Helper()
	testmount.OpenOnce(t, name)
	packed, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for entries := tar.NewReader(plain); ; {
		h, err := entries.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		files++
		if got, err := io.ReadAll(entries); err != nil || !bytes.Equal(got, want[h.Name]) || want[h.Name] == nil {
			t.Errorf("%s: %d bytes, %v", h.Name, len(got), err)
		}
	}
	if files != len(want) {
		t.Errorf("%d files, want %d", files, len(want))
	}
}

// An object that a customer's key encrypts is not served without the key, or with another one.
func TestCustomerKey(t *testing.T) {
	s := newStore(t)
	key, err := encrypt.NewSSEC(bytes.Repeat([]byte("k"), 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Client.PutObject(t.Context(), s.bucket, "key", strings.NewReader("content"), 7, minio.PutObjectOptions{ServerSideEncryption: key}); err != nil {
		t.Fatal(err)
	}
	s.expectRefused(t, s.artifact(t, "s3://BUCKET/key -> /in/x"), "InvalidRequest")
	other := s.artifact(t, "s3://BUCKET/key?sse=c -> /in/x")
	other.Access.CustomerKey = bytes.Repeat([]byte("o"), 32)
	s.expectRefused(t, other, "AccessDenied")
	other.Access.CustomerKey = nil
	s.expectRefused(t, other, "the credentials need the customer's key")
	s.expectRefused(t, s.artifact(t, "s3://BUCKET/none?sse=s3 -> /in/x"), "NoSuchKey")
}

// An object that is replaced while it is read is an error, with whatever key it is encrypted.
func TestReplaced(t *testing.T) {
	s := newStore(t)
	for _, option := range []string{"", "?sse=kms"} {
		s.put(t, "key", noise(2<<20))
		c := serve(t, s.artifact(t, "s3://BUCKET/key"+option+" -> /in/x"))
		testmount.OpenOnce(t, c.mounts[0])
		f, err := os.Open(c.mounts[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
			t.Error(err)
		}
		s.put(t, "key", noise(2<<20))
		if _, err := f.ReadAt(make([]byte, 1), 1<<20); !errors.Is(err, unix.EIO) {
			t.Errorf("read what was replaced: %v", err)
		}
		f.Close()
		c.end()
		if !strings.Contains(c.log.String(), "key=key code=PreconditionFailed") {
			t.Errorf("logged %s", &c.log)
		}
	}
}

// A container that fails leaves neither an object nor an upload.
func TestAborted(t *testing.T) {
	s := newStore(t)
	for _, option := range []string{"", "?sse=kms"} {
		c := serve(t, s.artifact(t, "/out/x -> s3://BUCKET/aborted"+option))
		write(t, c.mounts[0]+"/x", noise(2*mount.PartSize+1))
		<-c.noted // an upload has begun, or the test's own limit
		// MinIO lists the uploads of one key only.
		list := func() int {
			found, err := s.client.ListMultipartUploads(t.Context(), s.bucket, "aborted", "", "", "", 10)
			if err != nil {
				t.Fatal(err)
			}
			return len(found.Uploads)
		}
		if n := list(); n != 1 {
			t.Errorf("%d uploads while it is written", n)
		}
		if err := c.Finish(t.Context(), false); err != nil {
			t.Error(err)
		}
		if n := list(); n != 0 {
			t.Errorf("%d uploads are left", n)
		}
		var response minio.ErrorResponse
		if _, err := s.client.StatObject(t.Context(), s.bucket, "aborted", minio.StatObjectOptions{}); !errors.As(err, &response) || response.StatusCode != http.StatusNotFound {
			t.Errorf("there is an object, or %v", err)
		}
	}
}

// Buckets are found as virtual hosts, BUCKET.s3.test.
func TestVirtualHost(t *testing.T) {
	s := newStore(t)
	asked := answerNames(t)
	endpoint := "https://" + tests3.Domain + ":" + s.Port
	out := serve(t, s.artifact(t, "/out/x -> s3://BUCKET/a%20b/%25?style=virtual&endpoint="+endpoint))
	content := noise(mount.PartSize + 1)
	write(t, out.mounts[0]+"/x", content)
	if err := out.Finish(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	in := serve(t, s.artifact(t, "s3://BUCKET/a%20b/%25?style=virtual&endpoint="+endpoint+" -> /in/x"),
		s.artifact(t, "s3://BUCKET/a%20b/?style=virtual&endpoint="+endpoint+" -> /in/d"))
	expectFile(t, in.mounts[0], content)
	expectFile(t, in.mounts[1]+"/%", content)
	for _, name := range asked() {
		if name != s.bucket+"."+tests3.Domain+"." {
			t.Errorf("looked for the host %s", name)
		}
	}
	if len(asked()) == 0 {
		t.Error("no host was looked for")
	}
}

// A web identity's token is exchanged for credentials by the store's own service. A token that has expired is refused.
func TestWebIdentity(t *testing.T) {
	s := newStore(t)
	s.put(t, "key", []byte("content"))
	with := func(valid time.Duration) control.ServedArtifact {
		token, err := s.Token(valid)
		if err != nil {
			t.Fatal(err)
		}
		a := s.artifact(t, "s3://BUCKET/key -> /in/x")
		a.Access = control.Access{Token: token, RoleARN: tests3.Role(), STS: "https://" + s.Address, Authorities: 1}
		return a
	}
	in := serve(t, with(time.Hour))
	expectFile(t, in.mounts[0], []byte("content"))
	s.expectRefused(t, with(-time.Hour), "expired")
}
