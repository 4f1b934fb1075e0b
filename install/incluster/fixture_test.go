package incluster

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/install"
	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testoutput"
	"github.com/wasmshim/containerd-shim-wasm/internal/testsystemd"
)

const (
	unit  = "containerd.service"
	token = "the-token"
)

// patience bounds every wait; a test that runs into it fails.
const patience = 3 * time.Minute

// fixture is a node with a real containerd, whose systemd and API server are stand-ins.
type fixture struct {
	t       *testing.T
	node    *testnode.Node
	api     *apiServer
	systemd *testsystemd.Server
	options Options
	dir     string // of what the installer writes, but for containerd's configuration

	mu      sync.Mutex
	restart func(context.Context) error // what systemd does
}

func newFixture(t *testing.T, version, config string) *fixture {
	t.Helper()
	// Short, for sockets.
	dir, err := os.MkdirTemp("", "ni-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fixture{t: t, dir: dir, api: newAPIServer(t)}
	bin := filepath.Join(dir, "bin")
	f.node = testnode.New(t, testnode.Options{Version: version, CRI: true, WithoutShim: true, Config: config, Shim: filepath.Join(bin, install.BinaryName)})
	f.restart = f.restartNode
	f.systemd, err = testsystemd.Serve(filepath.Join(dir, "systemd"), unit, func(ctx context.Context) error {
		f.mu.Lock()
		restart := f.restart
		f.mu.Unlock()
		return restart(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.systemd.Close() })
	f.options = Options{
		Install: install.Options{
			Config:     f.config(),
			BinDir:     bin,
			NodeConfig: filepath.Join(dir, "containerd-shim-wasm", "config.toml"),
			Binary:     shim(t),
		},
		Node:        "node-1",
		DaemonSet:   "node-installer",
		Credentials: f.api.credentials,
		Server:      f.api.URL,
		Socket:      f.node.Address(),
		State:       filepath.Join(dir, "state"),
		Restart:     Restart{unit: unit, socket: filepath.Join(dir, "systemd")},
		Timeout:     patience,
		Drain:       patience,
		Interval:    50 * time.Millisecond,
	}
	return f
}

func (f *fixture) config() string { return f.node.ConfigPath() }

// restartNode does what systemd would.
func (f *fixture) restartNode(ctx context.Context) error {
	return errors.Join(f.node.Terminate(), f.node.Restart(ctx))
}

func (f *fixture) onRestart(do func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restart = do
}

// shim returns the shim's binary, as make build leaves it.
func shim(t *testing.T) string {
	t.Helper()
	root, err := repo.Root()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "bin", install.BinaryName)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return path
}

// files returns every file that an installer may write, with mode and content.
func (f *fixture) files() map[string]string {
	f.t.Helper()
	all := map[string]string{}
	for _, root := range []string{filepath.Join(f.dir, "bin"), filepath.Dir(f.options.Install.NodeConfig), f.options.State,
		f.config(), filepath.Join(f.node.Dir, "extra.toml")} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			info, err := d.Info()
			all[path] = info.Mode().String() + info.ModTime().String() + string(text)
			if root == f.config() { // replaced and put back: the time may differ
				all[path] = info.Mode().String() + string(text)
			}
			return err
		})
		if err != nil {
			f.t.Fatal(err)
		}
	}
	return all
}

// expectFiles fails unless the node's files are these.
func (f *fixture) expectFiles(want map[string]string) {
	f.t.Helper()
	got := f.files()
	if maps.Equal(got, want) {
		return
	}
	for path, text := range got {
		if want[path] != text {
			f.t.Errorf("%s is new or differs", path)
		}
	}
	for path := range want {
		if got[path] == "" {
			f.t.Errorf("%s is gone", path)
		}
	}
}

// offered reports whether the running containerd offers the runtime; nil means that it does.
func (f *fixture) offered() error {
	f.t.Helper()
	configuration, err := cri{f.options.Socket}.configuration(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	return install.CheckRunning(configuration, f.options.Install.NodeConfig)
}

func (f *fixture) expectRestarts(want int) {
	f.t.Helper()
	if got := f.systemd.Restarts(); got != want {
		f.t.Errorf("containerd was restarted %d times, want %d", got, want)
	}
}

// pod is an installer that runs.
type pod struct {
	t         *testing.T
	installer *Installer
	log       *testoutput.Buffer
	cancel    context.CancelFunc
	done      chan error
}

func (f *fixture) start() *pod {
	f.t.Helper()
	p := &pod{t: f.t, log: &testoutput.Buffer{}, done: make(chan error, 1)}
	var err error
	if p.installer, err = New(f.options, log.New(p.log, "", 0)); err != nil {
		f.t.Fatal(err)
	}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	go func() { p.done <- p.installer.Run(ctx) }()
	f.t.Cleanup(func() {
		p.cancel()
		if f.t.Failed() {
			f.t.Logf("the installer's log:\n%s", p.log)
		}
	})
	return p
}

// stop is the pod's SIGTERM; it returns when the process would have ended.
func (p *pod) stop() error {
	p.t.Helper()
	p.cancel()
	select {
	case err := <-p.done:
		return err
	case <-time.After(patience):
		p.t.Fatal("the installer does not end")
		return nil
	}
}

func (p *pod) waitReady() {
	p.t.Helper()
	waitFor(p.t, "the pod to become ready", p.installer.readiness.ready)
}

// waitLog waits until the log holds the text.
func (p *pod) waitLog(text string) {
	p.t.Helper()
	waitFor(p.t, "the log to say "+text, func() bool { return strings.Contains(p.log.String(), text) })
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// apiServer answers over TLS the requests that an installer may make, and no others.
type apiServer struct {
	*httptest.Server
	t           *testing.T
	credentials string

	mu       sync.Mutex
	labels   map[string]any
	gone     bool // the DaemonSet
	deleting bool
	uid      string
	refuse   int                         // answer everything with this status
	before   func(request *http.Request) // hook, before an answer
	after    func(request *http.Request) // hook, after it was decided
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	a := &apiServer{t: t, credentials: t.TempDir(), labels: map[string]any{"kubernetes.io/os": "linux"}, uid: "uid-1"}
	a.Server = httptest.NewTLSServer(http.HandlerFunc(a.answer))
	t.Cleanup(a.Close)
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate().Raw})
	for name, content := range map[string]string{"ca.crt": string(authority), "token": token + "\n", "namespace": "wasm-shim\n"} {
		if err := os.WriteFile(filepath.Join(a.credentials, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func (a *apiServer) certificate() *x509.Certificate { return a.Server.Certificate() }

// change changes the server's state.
func (a *apiServer) change(do func(*apiServer)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	do(a)
}

// label returns the value of our label, nil without one.
func (a *apiServer) label() any {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.labels[Label]
}

func (a *apiServer) answer(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	before, after := a.before, a.after
	a.mu.Unlock()
	if before != nil {
		before(r)
	}
	code, object := a.decide(r)
	if after != nil {
		after(r)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(object); err != nil {
		a.t.Errorf("answering: %v", err)
	}
}

func (a *apiServer) decide(r *http.Request) (int, any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	status := func(code int) (int, any) {
		return code, map[string]any{"kind": "Status", "message": "the server says no"}
	}
	if r.Header.Get("Authorization") != "Bearer "+token {
		return status(http.StatusUnauthorized)
	}
	if a.refuse != 0 {
		return status(a.refuse)
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /apis/apps/v1/namespaces/wasm-shim/daemonsets/node-installer":
		if a.gone {
			return status(http.StatusNotFound)
		}
		meta := map[string]any{"name": "node-installer", "uid": a.uid}
		if a.deleting {
			meta["deletionTimestamp"] = "2026-11-23T12:00:00Z"
		}
		return http.StatusOK, map[string]any{"metadata": meta}
	case "PATCH /api/v1/nodes/node-1":
		var patch struct {
			Metadata struct{ Labels map[string]any }
		}
		if err := json.NewDecoder(r.Body).Decode(&patch); err != nil || r.Header.Get("Content-Type") != "application/merge-patch+json" {
			a.t.Errorf("patch of type %q: %v", r.Header.Get("Content-Type"), err)
		}
		for key, value := range patch.Metadata.Labels {
			a.labels[key] = value
			if value == nil {
				delete(a.labels, key)
			}
		}
		fallthrough
	case "GET /api/v1/nodes/node-1":
		return http.StatusOK, map[string]any{"metadata": map[string]any{"labels": maps.Clone(a.labels)}}
	}
	a.t.Errorf("unexpected request: %s %s", r.Method, r.URL)
	return status(http.StatusNotFound)
}

// newProbe serves r and returns what asks it: status code and text.
func newProbe(t *testing.T, r *readiness) func() string {
	t.Helper()
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return func() string {
		t.Helper()
		response, err := server.Client().Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%d %s", response.StatusCode, text)
	}
}

// edit replaces text in a file.
func edit(t *testing.T, path, old, replacement string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%s does not hold %q", path, old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, replacement, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}
