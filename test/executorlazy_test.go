package test

import (
	"archive/tar"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// lazyTemplate has artifacts that can be read while the main container runs. STORE is the address of an S3 server.
const lazyTemplate = `{"name":"t","inputs":{"artifacts":[{"name":"file","path":"/in/file","mode":292,"archive":{"none":{}},"s3":{"key":"data.csv"}},` +
	`{"name":"tree","path":"/in/tree","mode":493,"recurseMode":true,"archive":{"none":{}},"s3":{"key":"tree"}},` +
	`{"name":"packed","path":"/in/packed","s3":{"key":"packed.tgz"}},{"name":"folder","path":"/in/folder","s3":{"key":"folder.tgz"}},` +
	`{"name":"none","path":"/in/none","optional":true,"archive":{"none":{}},"s3":{"key":"none"}}]},"outputs":{},"metadata":{},` +
	`"container":{"name":"","image":"x","resources":{}},` +
	`"archiveLocation":{"s3":{"endpoint":"STORE","bucket":"bucket","region":"r","insecure":true,"accessKeySecret":{"name":"s","key":"a"},` +
	`"secretKeySecret":{"name":"s","key":"b"},"key":"w/w-1"}}}`

// lazyPod is a workflow's pod with input artifacts.
type lazyPod struct {
	*executorPod
	store  *objectStore
	inputs string // the volume of the input artifacts
}

func lazyStep(t *testing.T, node *testnode.Node, way way, objects map[string]string) lazyPod {
	t.Helper()
	p := lazyPod{executorPod: way.executorPod(t, node), store: serveObjects(t, objects), inputs: t.TempDir()}
	secret := t.TempDir()
	for name, content := range map[string]string{secret + "/a": "access", secret + "/b": "secret"} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.mounts = []specs.Mount{
		{Destination: "/argo/secret/s", Type: "bind", Source: secret, Options: []string{"rbind", "ro"}},
		{Destination: "/argo/inputs/artifacts", Type: "bind", Source: p.inputs, Options: []string{"rbind", "rw"}},
		{Destination: "/tmp", Type: "bind", Source: t.TempDir(), Options: []string{"rbind", "rw"}},
	}
	return p
}

func (p lazyPod) template() string {
	return strings.ReplaceAll(lazyTemplate, "STORE", p.store.Listener.Addr().String())
}

// artifacts are the mounts of the artifacts below a folder, as the kubelet makes them: a folder where init has left
// nothing.
func (p lazyPod) artifacts(below string) []specs.Mount {
	p.t.Helper()
	var mounts []specs.Mount
	for _, name := range []string{"file", "tree", "packed", "folder", "none"} {
		source := filepath.Join(p.inputs, name)
		if _, err := os.Stat(source); errors.Is(err, os.ErrNotExist) {
			if err := os.Mkdir(source, 0o755); err != nil {
				p.t.Fatal(err)
			}
		}
		mounts = append(mounts, specs.Mount{Destination: below + "/in/" + name, Type: "bind", Source: source, Options: []string{"rbind", "rw"}})
	}
	return mounts
}

// lead runs init and wait.
func (p *lazyPod) lead() (wait *task) {
	p.t.Helper()
	p.begin(p.template())
	p.mounts = append(p.mounts, p.artifacts("/mainctrfs")...)
	wait = p.create("wait")
	wait.start()
	waitFor(p.t, func() bool { return len(p.api.Seen()) > 0 }, "the first report")
	return wait
}

// main creates the main container, which has the folder out at /out.
func (p *lazyPod) main(way way, out string, args []string, more ...oci.SpecOpts) (*task, error) {
	p.t.Helper()
	return p.container("main", way, out, args, more...)
}

// container creates a container of the pod that has the artifacts, as no other than main has.
func (p *lazyPod) container(name string, way way, out string, args []string, more ...oci.SpecOpts) (*task, error) {
	p.t.Helper()
	way.runtime = runtime
	return way.tryCreate(p.t, p.node, p.node.Client(p.t), args, append([]oci.SpecOpts{
		oci.WithMounts(p.artifacts("")), oci.WithAnnotations(map[string]string{sandboxID: p.leader.container.ID(), "io.kubernetes.cri.container-name": name}),
		oci.WithMounts([]specs.Mount{{Destination: "/out", Type: "bind", Source: out, Options: []string{"rbind", "rw"}}}),
	}, more...)...)
}

// run runs the main container to its end, and returns what it has left at /out.
func (p *lazyPod) run(way way, args []string, more ...oci.SpecOpts) map[string]string {
	p.t.Helper()
	out := p.t.TempDir()
	k, err := p.main(way, out, args, more...)
	if err != nil {
		p.t.Fatal(err)
	}
	k.start()
	k.expectCode(0)
	k.remove()
	return contents(p.t, out)
}

// end ends the wait container as the end of main does.
func (p *lazyPod) end(wait *task) {
	p.t.Helper()
	p.leave("ctr/main/stdout", "")
	p.leave("ctr/main/exitcode", "0")
	wait.expectCode(0)
	if p.t.Failed() {
		p.t.Logf("wait printed\n%s", wait.output)
	}
}

// loaded returns how many bytes of the artifact file are on the volume.
func (p *lazyPod) loaded() int64 {
	p.t.Helper()
	info, err := os.Stat(filepath.Join(p.inputs, "file"))
	if err != nil {
		p.t.Fatal(err)
	}
	return info.Size()
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		text, readErr := os.ReadFile(filepath.Join(dir, e.Name()))
		err = errors.Join(err, readErr)
		found[e.Name()] = string(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// reading reads each artifact.
func (w way) reading() []string {
	return []string{w.probe(), "copy", "/in/file", "/out/file", ",", "copy", "/in/tree/a", "/out/a", ",", "copy", "/in/tree/sub/b", "/out/b", ",",
		"copy", "/in/packed", "/out/packed", ",", "copy", "/in/folder/last", "/out/last", ",", "copy", "/in/folder/x/first", "/out/first", ",", "ls", "/in/none"}
}

var (
	lazyData  = strings.Repeat("0123456789abcdef", 1<<18)
	lazyFiles = map[string]string{"file": lazyData, "a": "first", "b": "second", "packed": lazyNoise, "first": lazyNoise, "last": "end"}
)

// lazyNoise cannot be compressed.
var lazyNoise = func() string {
	text := make([]byte, 2<<20)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	return string(text)
}()

func lazyObjects(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		"/bucket/data.csv": lazyData, "/bucket/tree/a": "first", "/bucket/tree/sub/b": "second", "/bucket/packed.tgz": packedFile(t, "x", lazyNoise),
		"/bucket/folder.tgz": packed(t, tar.Header{Name: "d", Typeflag: tar.TypeDir, Mode: 0o755}, "", tar.Header{Name: "d/x/first", Mode: 0o644}, lazyNoise,
			tar.Header{Name: "d/last", Mode: 0o600}, "end"),
	}
}

// A main container of a workflow has its input artifacts as files, though nothing has loaded them before: a Wasm one
// reads them from the store, a native one gets them loaded before it starts. So does a Wasm one whose working directory
// or module is in one of them, for the daemon would have to read it.
func TestLazyArtifacts(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		for name, c := range map[string]struct {
			main   way
			args   []string
			more   oci.SpecOpts
			loaded bool
			want   map[string]string
		}{
			"wasm":   {main: argoWasm, args: argoWasm.reading(), want: lazyFiles},
			"native": {main: argoNative, args: argoNative.reading(), loaded: true, want: lazyFiles},
			"working directory": {
				main: argoWasm, args: argoWasm.reading(), more: oci.WithProcessCwd("/in/tree/sub"), loaded: true, want: lazyFiles,
			},
			"module": {main: argoWasm, args: []string{"/in/tree/app.wasm", "write", "/out/x", "ran"}, loaded: true, want: map[string]string{"x": "ran"}},
		} {
			t.Run(name, func(t *testing.T) {
				objects := lazyObjects(t)
				module, err := os.ReadFile(testguest.Build(t, "probe"))
				if err != nil {
					t.Fatal(err)
				}
				objects["/bucket/tree/app.wasm"] = string(module)
				p := lazyStep(t, node, ourExecutor, objects)
				wait := p.lead()
				for _, ask := range p.store.asked() {
					if strings.HasPrefix(ask, "GET /bucket/data.csv") || strings.HasPrefix(ask, "GET /bucket/tree/") {
						t.Errorf("before the main container was there: %s", ask)
					}
				}
				var more []oci.SpecOpts
				if c.more != nil {
					more = append(more, c.more)
				}
				if got := p.run(c.main, c.args, more...); !maps.Equal(got, c.want) {
					for name := range c.want {
						t.Errorf("%s: %d bytes %.20q, want %d", name, len(got[name]), got[name], len(c.want[name]))
					}
				}
				if n := p.loaded(); (n > 0) != c.loaded {
					t.Errorf("the volume has %d bytes of the file; the store was asked %q", n, p.store.asked())
				}
				// Where it was read from the store, wait's log says how much.
				if said := strings.Contains(wait.output.String(), "an input artifact was read from its store"); said == c.loaded {
					t.Errorf("wait printed %s", wait.output)
				}
				p.end(wait)
			})
		}
	})
}

// A file of an artifact that main writes to has its whole content first, and main's own view of it changes.
func TestLazyArtifactsAreWritable(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		p := lazyStep(t, node, ourExecutor, lazyObjects(t))
		wait := p.lead()
		var args []string
		want := map[string]string{}
		for name, before := range map[string]string{"file": lazyData, "tree/a": "first", "packed": lazyNoise, "folder/last": "end"} {
			out := strings.ReplaceAll(name, "/", "-")
			args = append(args, "append", "/in/"+name, "more", ",", "copy", "/in/"+name, "/out/"+out, ",")
			want[out] = before + "more"
		}
		args = append(args, "write", "/in/tree/new", "new", ",", "copy", "/in/tree/new", "/out/new")
		want["new"] = "new"
		if got := p.run(argoWasm, append([]string{argoWasm.probe()}, args...)); !maps.Equal(got, want) {
			for name := range want {
				t.Errorf("%s: %d bytes, want %d", name, len(got[name]), len(want[name]))
			}
		}
		p.end(wait)
	})
}

// Where the operator or the pod wants it so, init downloads the artifacts.
func TestLazyArtifactsOff(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		p := lazyStep(t, node, ourExecutor, lazyObjects(t))
		p.annotations = map[string]string{"wasm.shim/download-artifacts": "true"}
		wait := p.lead()
		if n := p.loaded(); n != int64(len(lazyData)) {
			t.Errorf("the volume has %d bytes of the file", n)
		}
		if got := p.run(argoWasm, argoWasm.reading()); !maps.Equal(got, lazyFiles) {
			t.Error("the main container has other artifacts")
		}
		p.end(wait)
	})
}

// server returns the process that serves the artifacts of main.
func (p lazyPod) server(wait *task) int {
	p.t.Helper()
	pids, err := wait.Pids(wait.ctx)
	if err != nil || len(pids) != 2 {
		p.t.Fatalf("the processes of wait are %v, %v", pids, err)
	}
	if pids[0].Pid == wait.Pid() {
		return int(pids[1].Pid)
	}
	return int(pids[0].Pid)
}

// killShim kills the shim of a pod, whose tasks then go, with all their processes and that of a program beside them.
func killShim(t *testing.T, pod []*task, beside int) {
	t.Helper()
	left := []uint32{uint32(beside)}
	for _, k := range pod {
		left = append(left, k.Pid())
	}
	if err := syscall.Kill(int(pod[0].connect().ShimPid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for _, k := range pod {
		k.awaitRemoval()
	}
	for _, pid := range left {
		waitFor(t, func() bool { return !alive(pid) }, "the end of process %d", pid)
	}
}

// A main container that waits for a store which does not answer, or for a program that does not run, can be killed, and
// goes when its shim is killed. If the program is killed, the read fails.
func TestLazyArtifactsThatHang(t *testing.T) {
	stopped := func(p lazyPod, wait *task) {
		if err := syscall.Kill(p.server(wait), syscall.SIGSTOP); err != nil {
			p.t.Fatal(err)
		}
	}
	stalled := func(p lazyPod, _ *task) { p.store.stall(p.t, "/bucket/data.csv") }
	killed := func(p lazyPod, wait, k *task) {
		kill(p.t, k, syscall.SIGKILL)
		k.expectCode(128 + 9)
		k.remove()
		if pids, err := wait.Pids(wait.ctx); err != nil || len(pids) != 1 {
			p.t.Errorf("the processes of wait are %v, %v", pids, err)
		}
		p.end(wait)
	}
	shimKilled := func(p lazyPod, wait, k *task) {
		killShim(p.t, []*task{k, wait, p.leader}, p.server(wait))
	}
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		for name, c := range map[string]struct {
			hang func(p lazyPod, wait *task)
			end  func(p lazyPod, wait, k *task)
		}{
			"store":                {stalled, killed},
			"program":              {stopped, killed},
			"store, shim killed":   {stalled, shimKilled},
			"program, shim killed": {stopped, shimKilled},
			"program, killed": {stopped, func(p lazyPod, wait, k *task) {
				if err := syscall.Kill(p.server(wait), syscall.SIGKILL); err != nil {
					p.t.Fatal(err)
				}
				k.expectCode(1)
				k.remove()
				p.end(wait)
			}},
		} {
			t.Run(name, func(t *testing.T) {
				p := lazyStep(t, node, ourExecutor, lazyObjects(t))
				wait := p.lead()
				out := t.TempDir()
				k, err := p.main(argoWasm, out, []string{argoWasm.probe(), "write", "/out/begun", "", ",", "copy", "/in/file", "/out/file"})
				if err != nil {
					t.Fatal(err)
				}
				c.hang(p, wait)
				k.start()
				waitFor(t, func() bool { _, err := os.Stat(out + "/begun"); return err == nil }, "the main container")
				c.end(p, wait, k)
			})
		}
	})
}

// A container that is not main, and has a folder of its own where main has an artifact, keeps that.
func TestLazyArtifactsAreMains(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		p := lazyStep(t, node, ourExecutor, lazyObjects(t))
		wait := p.lead()
		k, err := p.container("sidecar", argoWasm, t.TempDir(), []string{argoWasm.probe(), "ls", "/in/tree", ",", "stat", "/in/file"})
		if err != nil {
			t.Fatal(err)
		}
		k.start()
		k.expectCode(0)
		k.remove()
		if got := k.output.String(); got != "file 0\n" {
			t.Errorf("it printed %q", got)
		}
		p.end(wait)
	})
}

// An artifact that has gone since init looked for it is an error of the main container's creation that says which.
func TestLazyArtifactHasGone(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		p := lazyStep(t, node, ourExecutor, lazyObjects(t))
		wait := p.lead()
		p.store.remove("/bucket/data.csv")
		if _, err := p.main(argoWasm, t.TempDir(), argoWasm.reading()); err == nil || !strings.Contains(err.Error(), "artifact file failed to load: The specified key does not exist") {
			t.Errorf("the main container's creation: %v", err)
		}
		if pids, err := wait.Pids(wait.ctx); err != nil || len(pids) != 1 {
			t.Errorf("the processes of wait are %v, %v", pids, err)
		}
		p.end(wait)
	})
}
