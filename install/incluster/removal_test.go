package incluster

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/install"
)

// Only a DaemonSet that is gone, or going, removes: not an upgrade, and no accident.
func TestWhatTheEndOfAPodMeans(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*apiServer)
		gone   bool
		why    string
	}{
		"there":           {func(*apiServer) {}, false, "still there"},
		"gone":            {func(a *apiServer) { a.gone = true }, true, "is gone"},
		"going":           {func(a *apiServer) { a.deleting = true }, true, "is being deleted"},
		"another":         {func(a *apiServer) { a.uid = "uid-2" }, false, "replaced by a new one"},
		"another, going":  {func(a *apiServer) { a.uid, a.deleting = "uid-2", true }, false, "replaced by a new one"},
		"rights gone":     {func(a *apiServer) { a.refuse = http.StatusForbidden }, true, "403 Forbidden: the server says no"},
		"account gone":    {func(a *apiServer) { a.refuse = http.StatusUnauthorized }, true, "401 Unauthorized"},
		"server error":    {func(a *apiServer) { a.refuse = http.StatusInternalServerError }, false, "cannot tell"},
		"too many":        {func(a *apiServer) { a.refuse = http.StatusTooManyRequests }, false, "cannot tell"},
		"server is down":  {func(a *apiServer) { a.Server.Listener.Close() }, false, "cannot tell"},
		"another machine": {func(a *apiServer) { os.WriteFile(filepath.Join(a.credentials, "token"), nil, 0o600) }, true, "401"},
	} {
		t.Run(name, func(t *testing.T) {
			api := newAPIServer(t)
			installer := newInstaller(t, api, "/no/such/socket")
			installer.daemonSet = "uid-1"
			tc.change(api)
			gone, why := installer.daemonSetGone(t.Context())
			if gone != tc.gone || !strings.Contains(why, tc.why) {
				t.Errorf("got %t, %q", gone, why)
			}
		})
	}
}

func newInstaller(t *testing.T, api *apiServer, socket string) *Installer {
	t.Helper()
	installer, err := New(Options{
		Install:     install.Options{Binary: "/bin/true"},
		Node:        "node-1",
		DaemonSet:   "node-installer",
		Credentials: api.credentials,
		Server:      api.URL,
		Socket:      socket,
		Interval:    time.Millisecond,
		Drain:       time.Minute,
		Timeout:     time.Second,
	}, log.New(io.Discard, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	return installer
}

// The API server must be the one that the service account knows.
func TestForeignAPIServer(t *testing.T) {
	api, other := newAPIServer(t), newAPIServer(t)
	installer := newInstaller(t, other, "")
	foreign := newInstaller(t, api, "")
	foreign.cluster.server = other.URL
	// All test servers share one certificate, so the pool is emptied instead.
	if err := os.WriteFile(filepath.Join(api.credentials, "ca.crt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newCluster(other.URL, api.credentials); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Errorf("got %v", err)
	}
	foreign.cluster.client = http.DefaultClient
	if _, err := foreign.cluster.daemonSetUID(t.Context(), "node-installer"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
	if uid, err := installer.cluster.daemonSetUID(t.Context(), "node-installer"); err != nil || uid != "uid-1" {
		t.Errorf("got %q, %v", uid, err)
	}
}

// runtimeService is a container runtime that has pods, or is another one than containerd.
type runtimeService struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	name string
	pods func() []*runtimeapi.PodSandbox
}

func (r *runtimeService) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: r.name, RuntimeVersion: "1.34.0"}, nil
}

func (r *runtimeService) ListPodSandbox(_ context.Context, request *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	var items []*runtimeapi.PodSandbox
	for _, pod := range r.pods() {
		if pod.State == request.Filter.State.State {
			items = append(items, pod)
		}
	}
	return &runtimeapi.ListPodSandboxResponse{Items: items}, nil
}

func (r *runtimeService) serve(t *testing.T) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ni-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(server, r)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return socket
}

func TestOtherRuntimes(t *testing.T) {
	socket := (&runtimeService{name: "cri-o"}).serve(t)
	err := newInstaller(t, newAPIServer(t), socket).attempt(t.Context())
	if err == nil || !strings.Contains(err.Error(), "cri-o 1.34.0; the shim needs containerd") {
		t.Errorf("got %v", err)
	}
}

func sandbox(name, handler string, state runtimeapi.PodSandboxState) *runtimeapi.PodSandbox {
	return &runtimeapi.PodSandbox{
		Metadata:       &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default"},
		RuntimeHandler: handler,
		State:          state,
	}
}

// A removal waits for Wasm pods that run, not for others nor for those that have ended.
func TestDrain(t *testing.T) {
	const ready, over = runtimeapi.PodSandboxState_SANDBOX_READY, runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	asked := 0
	service := &runtimeService{name: "containerd", pods: func() []*runtimeapi.PodSandbox {
		asked++
		pods := []*runtimeapi.PodSandbox{sandbox("native", "", ready), sandbox("old", "wasm", over)}
		if asked < 3 {
			pods = append(pods, sandbox("busy", "wasm", ready))
		}
		return pods
	}}
	installer := newInstaller(t, newAPIServer(t), service.serve(t))
	if err := installer.drain(t.Context()); err != nil || asked != 3 {
		t.Errorf("asked %d times, %v", asked, err)
	}
	asked, installer.options.Drain = -1000, time.Millisecond
	err := installer.drain(t.Context())
	if err == nil || !strings.Contains(err.Error(), "(default/busy)") || !strings.Contains(err.Error(), "containerd-shim-wasm-v1 uninstall") {
		t.Errorf("got %v", err)
	}
}

// While Wasm pods run, a removal takes the label and nothing else.
func TestRemovalStaysForRunningPods(t *testing.T) {
	f := newFixture(t, "2.2", "")
	p := f.start()
	p.waitReady()
	installed := f.files()
	// A containerd with a running Wasm pod, in place of the real one.
	busy := &runtimeService{name: "containerd", pods: func() []*runtimeapi.PodSandbox {
		return []*runtimeapi.PodSandbox{sandbox("busy", "wasm", runtimeapi.PodSandboxState_SANDBOX_READY)}
	}}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	f.options.Socket, f.options.Drain = busy.serve(t), 10*time.Millisecond
	p = f.start()
	f.api.change(func(a *apiServer) { a.gone = true })
	err := p.stop()
	if err == nil || !strings.Contains(err.Error(), "removing failed: pods still run Wasm") {
		t.Errorf("got %v", err)
	}
	f.expectFiles(installed)
	f.expectRestarts(1)
	if f.api.label() != nil {
		t.Error("the label stayed")
	}
}

// A service account without rights cannot take the label away; the log says who must.
func TestRemovalWithoutRights(t *testing.T) {
	f := newFixture(t, "2.2", "")
	before := f.files()
	p := f.start()
	p.waitReady()
	f.api.change(func(a *apiServer) { a.refuse = http.StatusForbidden })
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	f.expectFiles(before)
	if !strings.Contains(p.log.String(), "kubectl label node node-1 wasm.shim/runtime-") {
		t.Errorf("the log is %s", p.log)
	}
}

// A block that somebody has edited is not removed blindly.
func TestRemovalOfAnEditedBlock(t *testing.T) {
	f := newFixture(t, "2.2", "")
	p := f.start()
	p.waitReady()
	edit(t, f.config(), `pod_annotations = [`, `pod_annotations = ["mine.example/*", `)
	installed := f.files()
	f.api.change(func(a *apiServer) { a.gone = true })
	if err := p.stop(); err == nil || !strings.Contains(err.Error(), "was edited by hand") {
		t.Errorf("got %v", err)
	}
	f.expectFiles(installed)
	f.expectRestarts(1)
}

func TestReadinessProbe(t *testing.T) {
	var r readiness
	r.set("containerd is down")
	stop, err := r.serve("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := r.serve("256.0.0.1:1"); err == nil {
		t.Error("listened at an address that does not exist")
	}
	server := newProbe(t, &r)
	for reason, want := range map[string]string{"containerd is down": "503 containerd is down\n", "": "200 ready\n"} {
		r.set(reason)
		if got := server(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestFlags(t *testing.T) {
	t.Setenv("NODE_NAME", "n")
	t.Setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	o, err := parse([]string{"--restart=systemd:k3s.service"}, io.Discard)
	if err != nil || o.Server != "https://[fd00::1]:443" || o.Node != "n" || o.Restart.unit != "k3s.service" || o.Restart.socket != SystemdSocket {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range [][]string{{"more"}, {"--restart=maybe"}, {"--node="}, {"--timeout=soon"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
