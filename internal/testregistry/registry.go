// Package testregistry serves a real OCI registry (CNCF Distribution) on the loopback interface, in
// the process of the test, without TLS. It never listens on another interface, and no shipped binary
// imports it.
//
// By default, CRI, containerd's transfer service and go-containerregistry treat 127.0.0.1 as a
// registry without TLS. "ctr images pull" does so with --plain-http.
package testregistry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path"
	"strconv"
	"sync"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // registers itself under that name
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
)

// Registry is one registry, empty at first. Its methods are safe for concurrent use.
type Registry struct {
	Addr string // 127.0.0.1:PORT, the first part of references

	server *http.Server

	mu       sync.Mutex
	replaced map[digest.Digest][]byte
	served   map[digest.Digest]int
}

// Start serves an empty registry until the end of the test.
//
// The library writes a line for each request to the process-wide logger of logrus, and accepts no
// other logger. The logger's level is raised, because a request for a missing blob is logged as an
// "error" too.
func Start(t testing.TB) *Registry {
	t.Helper()
	logrus.SetLevel(logrus.FatalLevel)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	app := handlers.NewApp(context.Background(), config(t.TempDir()))
	r := &Registry{
		Addr:     listener.Addr().String(),
		replaced: map[digest.Digest][]byte{},
		served:   map[digest.Digest]int{},
	}
	r.server = &http.Server{Handler: r.watch(app)}
	t.Cleanup(func() {
		if err := errors.Join(r.server.Close(), app.Shutdown()); err != nil {
			t.Errorf("stopping the registry: %v", err)
		}
	})
	r.Serve(t, listener)
	return r
}

func config(dir string) *configuration.Configuration {
	c := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem": configuration.Parameters{"rootdirectory": dir},
		"delete":     configuration.Parameters{"enabled": true},
		"maintenance": configuration.Parameters{
			"uploadpurging": map[any]any{"enabled": false}, // it would leave a goroutine behind
		},
	}}
	c.HTTP.Secret = "of no use to anybody" // if it is missing, the library generates one and logs a warning
	// An index may name platforms that were never pushed, as in mirrors that have only some of them.
	c.Validation.Manifests.Indexes.Platforms = "none"
	return c
}

// Serve serves the same registry on one more listener, until the end of the test that started it.
func (r *Registry) Serve(t testing.TB, listener net.Listener) {
	t.Helper()
	go func() {
		if err := r.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving the registry: %v", err)
		}
	}()
}

// ServeIn serves the same registry, under the same address, in the network namespace of a process. A
// node with CRI needs it: that node cannot reach this process's loopback interface. ServeIn does
// nothing if the process shares this network namespace.
func (r *Registry) ServeIn(t testing.TB, pid int) {
	t.Helper()
	listener, err := listenIn(pid, r.Addr)
	if err != nil {
		t.Fatalf("serving the registry in the network namespace of process %d: %v", pid, err)
	}
	if listener != nil {
		r.Serve(t, listener)
	}
}

// Ref returns the reference of a repository in this registry, with the tag latest if it has none.
func (r *Registry) Ref(repository string) string {
	ref, err := name.ParseReference(r.Addr + "/" + repository)
	if err != nil {
		return r.Addr + "/" + repository
	}
	return ref.Name()
}

// A Pusher can write itself to a registry.
type Pusher interface {
	Push(ref name.Reference, options ...remote.Option) error
}

// Push pushes to the repository, as in "hello" or "hello:v1", and returns the whole reference.
func (r *Registry) Push(t testing.TB, repository string, what Pusher) string {
	t.Helper()
	return r.push(t, repository, what.Push)
}

// PushImage is Push for an image or an index of go-containerregistry.
func (r *Registry) PushImage(t testing.TB, repository string, what remote.Taggable) string {
	t.Helper()
	return r.push(t, repository, func(ref name.Reference, options ...remote.Option) error {
		return remote.Push(ref, what, options...)
	})
}

func (r *Registry) push(t testing.TB, repository string, push func(name.Reference, ...remote.Option) error) string {
	t.Helper()
	ref, err := name.ParseReference(r.Addr + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	if err := push(ref, remote.WithContext(t.Context())); err != nil {
		t.Fatalf("pushing %s: %v", ref, err)
	}
	return ref.Name()
}

// Replace makes the registry serve other content for a blob, as a broken or hostile one might.
func (r *Registry) Replace(blob digest.Digest, content []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replaced[blob] = content
}

// Served returns how often a blob or a manifest was fetched by its digest.
func (r *Registry) Served(content digest.Digest) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.served[content]
}

// watch counts fetches, and serves the replacements of blobs.
func (r *Registry) watch(registry http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		content, err := digest.Parse(path.Base(request.URL.Path))
		if err != nil || request.Method != http.MethodGet {
			registry.ServeHTTP(w, request)
			return
		}
		r.mu.Lock()
		r.served[content]++
		other, ok := r.replaced[content]
		r.mu.Unlock()
		if !ok {
			registry.ServeHTTP(w, request)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(other)))
		w.Header().Set("Docker-Content-Digest", content.String())
		_, _ = w.Write(other) // errors of a client that has disconnected do not matter
	})
}
