package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// artifactsTemplate has artifacts both ways, one on a volume, and archives logs. STORE is the address of an S3 server.
const artifactsTemplate = `{"name":"t","inputs":{"artifacts":[{"name":"in","path":"/in","s3":{"key":"in.tgz"}},{"name":"text","path":"/v/text","mode":384,"raw":{"data":"t"}}]},` +
	`"outputs":{"artifacts":[{"name":"out","path":"/tmp/out"},{"name":"plain","path":"/tmp/plain.html","archive":{"none":{}}},{"name":"v","path":"/v","archive":{"zip":{}}},` +
	`{"name":"again","path":"/in","archive":{"none":{}}},{"name":"none","path":"/tmp/none","optional":true},{"name":"lost","path":"/tmp/lost"}]},"metadata":{},` +
	`"container":{"name":"","image":"x","resources":{},"volumeMounts":[{"name":"v","mountPath":"/v"}]},` +
	`"archiveLocation":{"archiveLogs":true,"s3":{"endpoint":"STORE","bucket":"bucket","region":"r","insecure":true,"accessKeySecret":{"name":"s","key":"a"},` +
	`"secretKeySecret":{"name":"s","key":"b"},"key":"w/w-1"}}}`

// objectStore is as much of an S3 server as an executor needs.
type objectStore struct {
	*httptest.Server
	mu      sync.Mutex
	objects map[string]string
	asks    []string
	stalled string        // an object that is never sent
	ended   chan struct{} // closed at the end of the test
}

// stall makes the store keep the requests for an object waiting.
func (s *objectStore) stall(t *testing.T, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stalled, s.ended = path, make(chan struct{})
	t.Cleanup(func() { close(s.ended) })
}

// remove removes an object.
func (s *objectStore) remove(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, path)
}

// asked returns the requests so far, by method and path.
func (s *objectStore) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asks)
}

// list answers ListObjectsV2 (https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html).
func (s *objectStore) list(w io.Writer, bucket, prefix string) {
	fmt.Fprint(w, "<ListBucketResult>")
	for _, path := range slices.Sorted(maps.Keys(s.objects)) {
		if key := strings.TrimPrefix(path, bucket); key != path && strings.HasPrefix(key, prefix) {
			fmt.Fprintf(w, "<Contents><Key>%s</Key><Size>%d</Size><ETag>1</ETag><LastModified>1970-01-01T00:00:01Z</LastModified></Contents>", key, len(s.objects[path]))
		}
	}
	fmt.Fprint(w, "</ListBucketResult>")
}

func serveObjects(t *testing.T, objects map[string]string) *objectStore {
	s := &objectStore{objects: objects}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asks = append(s.asks, r.Method+" "+r.URL.Path)
		if s.stalled == r.URL.Path && (r.Method == http.MethodGet || r.Method == http.MethodPut) {
			s.mu.Unlock()
			<-s.ended
			s.mu.Lock()
		}
		w.Header().Set("ETag", `"1"`)
		switch object, found := s.objects[r.URL.Path]; {
		case r.Method == http.MethodPut:
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			s.objects[r.URL.Path] = r.Header.Get("Content-Type") + " " + unchunked(string(body))
		case r.URL.Query().Has("list-type"):
			s.list(w, r.URL.Path, r.URL.Query().Get("prefix"))
		case found:
			http.ServeContent(w, r, "", time.Unix(1, 0), strings.NewReader(object))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// unchunked returns the content of a body that is signed in chunks: SIZE;chunk-signature=…\r\nCONTENT\r\n
func unchunked(body string) string {
	var content strings.Builder
	for {
		var size int
		head, rest, found := strings.Cut(body, "\r\n")
		if n, _ := fmt.Sscanf(head, "%x;chunk-signature=", &size); !found || n != 1 || size > len(rest) {
			return content.String() + body
		}
		if size == 0 {
			return content.String()
		}
		content.WriteString(rest[:size])
		body = strings.TrimPrefix(rest[size:], "\r\n")
	}
}

// packedFile returns a tarball of a file, compressed.
func packedFile(t *testing.T, name, content string) string {
	t.Helper()
	return packed(t, tar.Header{Name: name, Mode: 0o644}, content)
}

// packed returns a tarball, compressed, of headers, each with its content.
func packed(t *testing.T, all ...any) string {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	archive := tar.NewWriter(compressed)
	var err error
	for i := 0; i+1 < len(all); i += 2 {
		header, content := all[i].(tar.Header), all[i+1].(string)
		header.Size = int64(len(content))
		err = errors.Join(err, archive.WriteHeader(&header))
		_, writeErr := io.WriteString(archive, content)
		err = errors.Join(err, writeErr)
	}
	if err := errors.Join(err, archive.Close(), compressed.Close()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A step's artifacts and logs come and go the same, whether our program carries them or the real executor.
func TestExecutorArtifacts(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		carry := func(way way) (string, map[string]string) {
			store := serveObjects(t, map[string]string{"/bucket/in.tgz": packedFile(t, "x", "input")})
			p := way.executorPod(t, node)
			secret, inputs, volume := t.TempDir(), t.TempDir(), t.TempDir()
			for name, content := range map[string]string{secret + "/a": "access", secret + "/b": "secret", volume + "/file": "on a volume"} {
				if err := errors.Join(os.WriteFile(name, []byte(content), 0o644), os.Chtimes(name, time.Unix(1, 0), time.Unix(1, 0))); err != nil {
					t.Fatal(err)
				}
			}
			p.mounts = []specs.Mount{
				{Destination: "/argo/secret/s", Type: "bind", Source: secret, Options: []string{"rbind", "ro"}},
				{Destination: "/argo/inputs/artifacts", Type: "bind", Source: inputs, Options: []string{"rbind", "rw"}},
				// The volume of the input artifacts is there from the start, and not each of them once it is loaded.
				{Destination: "/mainctrfs", Type: "bind", Source: inputs, Options: []string{"rbind", "rw"}},
				{Destination: "/mainctrfs/v", Type: "bind", Source: volume, Options: []string{"rbind", "rw"}},
				{Destination: "/tmp", Type: "bind", Source: t.TempDir(), Options: []string{"rbind", "rw"}},
			}
			template := strings.ReplaceAll(artifactsTemplate, "STORE", store.Listener.Addr().String())
			seen := p.play(executorScene{
				template: template, ends: []string{"main"}, files: map[string]string{
					"ctr/main/stdout": "", "ctr/main/combined": "logged\n", "outputs/artifacts/tmp/out.tgz": "packed", "outputs/artifacts/tmp/plain.html.tgz": packedFile(t, "plain.html", "plain"),
				},
			})
			return strings.ReplaceAll(seen, store.Listener.Addr().String(), "STORE"), store.objects
		}
		got, ours := carry(ourExecutor)
		if want, real := carry(realExecutor); got != want || !maps.Equal(ours, real) {
			t.Errorf("with our program:\n%.4000s\n%q\nwith the real executor:\n%.4000s\n%q", got, ours, want, real)
		}
		keys := []string{"/bucket/in.tgz", "/bucket/w/w-1/in", "/bucket/w/w-1/main.log", "/bucket/w/w-1/out.tgz", "/bucket/w/w-1/plain.html", "/bucket/w/w-1/v.zip"}
		if found := slices.Sorted(maps.Keys(ours)); !slices.Equal(found, keys) || !strings.Contains(ours["/bucket/w/w-1/in"], "input") || !strings.Contains(got, "lost.tgz: no such file") {
			t.Errorf("there are %q, want %q, in\n%q\n%s", found, keys, ours, got)
		}
	})
}
