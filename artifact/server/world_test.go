package server

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/internal/testmount"
	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// minioStore is the store of all tests. It is started once, and stopped by TestMain.
var (
	minioStore *tests3.Minio
	startMinio sync.Once
	errMinio   error
)

func TestMain(m *testing.M) {
	testmount.Main()
	instanceMain()
	code := m.Run()
	if minioStore != nil {
		minioStore.Stop()
	}
	os.Exit(code)
}

// store is a bucket of MinIO.
type store struct {
	*tests3.Minio
	bucket string
	client *minio.Core
}

func newStore(t *testing.T) *store {
	t.Helper()
	startMinio.Do(func() { minioStore, errMinio = tests3.StartMinio() })
	if errMinio != nil {
		t.Fatal(errMinio)
	}
	s := &store{minioStore, "b-" + strings.ToLower(rand.Text()), minioStore.Client(t)}
	if err := s.client.MakeBucket(t.Context(), s.bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// artifact is one of the store's, by the annotation's text, in which BUCKET is the bucket, with the store's own keys.
func (s *store) artifact(t *testing.T, text string) control.ServedArtifact {
	t.Helper()
	all, err := request.Parse(map[string]string{request.Prefix + "x": strings.Replace(text, "BUCKET", s.bucket, 1)}, "main")
	if err != nil {
		t.Fatal(err)
	}
	a := all[0]
	if a.At.Endpoint == "" {
		a.At.Endpoint = "https://" + s.Address
	}
	return control.ServedArtifact{Artifact: a, Access: control.Access{AccessKey: tests3.Access, SecretKey: tests3.Secret, Authorities: 1}}
}

// put puts an object by the client of the tests.
func (s *store) put(t *testing.T, key string, content []byte) {
	t.Helper()
	if _, err := s.client.Client.PutObject(t.Context(), s.bucket, key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

// container has artifacts, each in a mount of its own.
type container struct {
	*Artifacts
	t      *testing.T
	mounts []string // by the order of the artifacts
	log    bytes.Buffer
	noted  chan control.Upload
}

// serve serves artifacts as for a container.
func serve(t *testing.T, artifacts ...control.ServedArtifact) *container {
	t.Helper()
	c := &container{t: t, noted: make(chan control.Upload, 100)}
	order := control.Serve{SpoolSize: 1 << 30, Authorities: [][]byte{[]byte(minioStore.Authority)}}
	for _, a := range artifacts {
		order.Mounts = append(order.Mounts, control.ServedMount{Path: a.Path, Artifacts: []control.ServedArtifact{a}})
	}
	spool, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { spool.Close() })
	c.Artifacts, err = Find(t.Context(), order, Options{
		Spool: spool, Log: slog.New(slog.NewTextHandler(&c.log, nil)), Noted: func(u control.Upload) { c.noted <- u },
	})
	if err != nil {
		t.Fatal(err)
	}
	var devices []*os.File
	for _, a := range artifacts {
		target, mode := t.TempDir(), uint32(unix.S_IFDIR|0o755)
		if !a.Output && !a.Folder {
			mode = unix.S_IFREG | 0o644
			target = filepath.Join(target, "file")
			write(t, target, nil)
		}
		devices = append(devices, testmount.Attach(t, target, mode))
		c.mounts = append(c.mounts, target)
	}
	t.Cleanup(c.end)
	if err := c.Serve(devices); err != nil {
		t.Fatal(err)
	}
	return c
}

// end ends the container's mounts. What is not stored is aborted.
func (c *container) end() {
	for _, target := range c.mounts {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			c.t.Error(err)
		}
	}
	c.mounts = nil
	if err := c.Abort(); err != nil {
		c.t.Error(err)
	}
	c.Wait()
}

// write writes a file without Go's poller, which would hold a lock that the server needs.
func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(path.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		t.Fatal(&os.PathError{Op: "open", Path: name, Err: err})
	}
	for len(content) > 0 {
		n, err := unix.Write(fd, content)
		if err != nil {
			t.Fatal(err)
		}
		content = content[n:]
	}
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
}

// expectFile checks what a file of a mount has.
func expectFile(t *testing.T, name string, want []byte) {
	t.Helper()
	testmount.OpenOnce(t, name)
	got, err := os.ReadFile(name)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(want) {
		t.Errorf("%s: read %d bytes, %v; want %d, or it has others", name, len(got), err, len(want))
	}
}

func noise(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.Read(p)
	return p
}

// expectRefused checks that an input is not served, and that the error names its object and the store's reason.
func (s *store) expectRefused(t *testing.T, a control.ServedArtifact, code string) {
	t.Helper()
	order := control.Serve{Authorities: [][]byte{[]byte(s.Authority)}, Mounts: []control.ServedMount{{Path: a.Path, Artifacts: []control.ServedArtifact{a}}}}
	_, err := Find(t.Context(), order, Options{Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("artifact x (s3://%s/%s of https://", s.bucket, a.At.Key)) || !strings.Contains(err.Error(), code) {
		t.Errorf("got %v, want %s", err, code)
	}
}
