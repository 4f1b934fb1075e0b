package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
)

// requestingPod is a pod whose containers ask for artifacts by annotation.
type requestingPod struct {
	t      *testing.T
	node   *testnode.Node
	leader *task
	store  string // its address
	keys   string // file with the store's credentials
	spool  string

	buckets string // folder of the store's buckets
	stolen  int    // the descriptor by which the program serves, 0 for none (takeOver)
}

// newRequestingPod starts a real store with the objects.
func newRequestingPod(t *testing.T, node *testnode.Node, objects map[string]string) *requestingPod {
	t.Helper()
	store, err := tests3.Start()
	t.Cleanup(store.Stop)
	if err != nil {
		t.Fatal(err)
	}
	p := requestingPodOf(t, node, store.Address)
	p.buckets = store.Buckets
	for name, content := range objects {
		file := filepath.Join(store.Buckets, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// requestingPodOf returns a pod for a store. more is for its pause container.
func requestingPodOf(t *testing.T, node *testnode.Node, store string, more ...oci.SpecOpts) *requestingPod {
	t.Helper()
	p := &requestingPod{t: t, node: node, store: store, keys: filepath.Join(t.TempDir(), "keys.toml"), spool: filepath.Join(t.TempDir(), "spool")}
	text := fmt.Sprintf("access_key = %q\nsecret_key = %q\n", tests3.Access, tests3.Secret)
	if err := os.WriteFile(p.keys, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.leader = asNative.run(t, node, "sleep", "sleeping", asPause, oci.WithHostNamespace(specs.NetworkNamespace), oci.Compose(more...))
	return p
}

// config is the node's: the pods of the namespace team may use the store.
func (p *requestingPod) config() string {
	return fmt.Sprintf("spool_dir = %q\n[[s3]]\nendpoint = \"http://%s\"\ndefault = true\nregion = %q\nnamespaces = [\"team\"]\ncredentials = %q\n",
		p.spool, p.store, tests3.Region, p.keys)
}

// create creates a container of the pod that asks for artifacts, by name.
func (p *requestingPod) create(config string, artifacts map[string]string, args []string, more ...oci.SpecOpts) (*task, error) {
	p.t.Helper()
	annotations := map[string]string{sandboxID: p.leader.container.ID(), "io.kubernetes.cri.container-name": "main", "io.kubernetes.cri.sandbox-namespace": "team"}
	for name, text := range artifacts {
		annotations["wasm.shim/artifact."+name] = text
	}
	options := &runtimeoptions.Options{ConfigBody: []byte(config)}
	return argoWasm.tryConfigured(context.Background(), p.t, p.node, p.node.Client(p.t), options, append([]string{argoWasm.probe()}, args...), append([]oci.SpecOpts{
		oci.WithAnnotations(annotations), oci.WithHostNamespace(specs.NetworkNamespace),
	}, more...)...)
}

// run runs such a container to its end and returns what it printed.
func (p *requestingPod) run(code uint32, artifacts map[string]string, args []string, more ...oci.SpecOpts) string {
	p.t.Helper()
	k, err := p.create(p.config(), artifacts, args, more...)
	if err != nil {
		p.t.Fatal(err)
	}
	k.start()
	k.expectCode(code)
	k.remove()
	p.expectNothingLeft()
	return k.output.String()
}

// expectNothingLeft checks that no folder for unfinished outputs is left.
func (p *requestingPod) expectNothingLeft() {
	p.t.Helper()
	left, err := filepath.Glob(p.spool + "/*/*")
	if err != nil || len(left) > 0 {
		p.t.Errorf("left: %v, %v", left, err)
	}
}

// stored returns an object, "" if there is none.
func (p *requestingPod) stored(name string) string {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.buckets, name))
	if err != nil && !os.IsNotExist(err) {
		p.t.Fatal(err)
	}
	return string(text)
}

// A container of any pod has the artifacts that the pod asks for by annotation, and what it writes becomes objects.
func TestRequestedArtifacts(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		p := newRequestingPod(t, node, map[string]string{
			"bucket/data.csv": lazyData, "bucket/tree/a": "first", "bucket/tree/sub/b": "second", "results/old": "old",
		})
		printed := p.run(0, map[string]string{
			"file": "s3://bucket/data.csv -> /in/file", "tree": "s3://bucket/tree/ -> /in/tree", "other": "s3://bucket/none?container=other -> /in/other",
		}, []string{"part", "/in/file", "4096", "16", ",", "part", "/in/tree/sub/b", "0", "6", ",", "ls", "/in/tree", ",", "ls", "/in"})
		for _, want := range []string{"0123456789abcdef", "second", "sub", "tree"} {
			if !strings.Contains(printed, want) {
				t.Errorf("%q is missing in what it printed:\n%s", want, printed)
			}
		}
		if !strings.Contains(printed, "an artifact was read from its store") || !strings.Contains(printed, "name=file") {
			t.Errorf("the container's log does not say what was read:\n%s", printed)
		}
	})
}

// An operator sees what a running container reads.
func TestRequestedArtifactsAreListed(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		p := newRequestingPod(t, node, map[string]string{"bucket/data.csv": lazyData})
		k, err := p.create(p.config(), map[string]string{"file": "s3://bucket/data.csv -> /in/file"}, []string{"part", "/in/file", "4096", "16", ",", "sleep", "1000"})
		if err != nil {
			t.Fatal(err)
		}
		k.start()
		k.output.await(t, "sleeping")
		row := regexp.MustCompile(`(?m)^` + p.leader.container.ID() + ` +main +file +/in/file +s3://bucket/data.csv +4194304 +[1-9]\d* +[1-9]\d* +[1-9]\d* +0 .* reading$`)
		var list string
		if !eventually(func() bool { list = listArtifacts(t, p.leader.container.ID()); return row.MatchString(list) }) {
			t.Errorf("the list is\n%s", list)
		}
		if list := listArtifacts(t, "another"); strings.Contains(list, "data.csv") {
			t.Errorf("the list of another pod is\n%s", list)
		}
		k.remove()
		if list := listArtifacts(t, p.leader.container.ID()); strings.Contains(list, "data.csv") {
			t.Errorf("after its end the list is\n%s", list)
		}
	})
}

func listArtifacts(t *testing.T, pod string) string {
	t.Helper()
	out, err := shimCommand(t, "artifacts", pod).CombinedOutput()
	if err != nil {
		t.Fatalf("artifacts: %v\n%s", err, out)
	}
	return string(out)
}

// What cannot be served is refused before the container runs, in words that name it.
func TestRequestedArtifactsAreRefused(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		p := newRequestingPod(t, node, map[string]string{"bucket/data.csv": "data"})
		other := strings.Replace(p.config(), `"team"`, `"other"`, 1)
		open := strings.Replace(p.config(), "[[s3]]", "[[s3]]\nbuckets = [\"others\"]", 1) + fmt.Sprintf("[[s3]]\nendpoint = \"http://%s\"\ndefault = true\n", p.store)
		wrong := filepath.Join(t.TempDir(), "keys.toml")
		if err := os.WriteFile(wrong, []byte("access_key = \"access-1\"\nsecret_key = \"wrong\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		volume := oci.WithMounts([]specs.Mount{{Destination: "/v", Type: "bind", Source: t.TempDir(), Options: []string{"rbind", "rw"}}})
		long := oci.WithMounts([]specs.Mount{{Destination: "/long", Type: "bind", Options: []string{"rbind", "ro"},
			Source: secretVolume(t, "kubernetes.io~secret", "long", map[string]string{"accesskey": "x", "secretkey": strings.Repeat("x", 1<<20)})}})
		for name, tc := range map[string]struct {
			config, artifact string
			more             oci.SpecOpts
			want             []string
		}{
			"missing key":       {artifact: "s3://bucket/none -> /in/x", want: []string{"artifact x (s3://bucket/none of http://", "NoSuchKey"}},
			"empty folder":      {artifact: "s3://bucket/none/ -> /in/x", want: []string{"artifact x (s3://bucket/none/ of http://", "NoSuchKey"}},
			"missing bucket":    {artifact: "s3://nobucket/none/ -> /in/x", want: []string{"artifact x (s3://nobucket/none/ of http://", "NoSuchBucket"}},
			"wrong password":    {config: strings.Replace(p.config(), p.keys, wrong, 1), artifact: "s3://bucket/data.csv -> /in/x", want: []string{"artifact x", "AccessDenied"}},
			"another's store":   {config: other, artifact: "s3://bucket/data.csv -> /in/x", want: []string{"wasm.shim/artifact.x", "there are no credentials for bucket bucket", `namespace "team"`, "[[s3]]"}},
			"another's bucket":  {config: open, artifact: "s3://bucket/data.csv -> /in/x", want: []string{"there are no credentials for bucket bucket"}},
			"another style":     {artifact: "s3://bucket/others/data.csv?style=virtual -> /in/x", want: []string{"wasm.shim/artifact.x", "option style=virtual: the operator of the node decides it"}},
			"a long key":        {artifact: "s3://bucket/data.csv?credentials=secret:long -> /in/x", more: long, want: []string{"secret:long", "secretkey has more than the 8192 bytes that are allowed"}},
			"plain HTTP":        {artifact: "s3://bucket/data.csv?endpoint=http://example.org -> /in/x", want: []string{"http://example.org has no TLS", "[[s3]]"}},
			"malformed":         {artifact: "s3://bucket/data.csv", want: []string{"wasm.shim/artifact.x", "is not s3://BUCKET/KEY -> /PATH"}},
			"over a mount":      {artifact: "s3://bucket/data.csv -> /v/x", more: volume, want: []string{"wasm.shim/artifact.x", "/v/x is at, above or below the container's mount /v"}},
			"above a mount":     {artifact: "/v/x -> s3://bucket/x", more: volume, want: []string{"the container's mount /v"}},
			"no such volume":    {artifact: "s3://bucket/data.csv?credentials=secret:none -> /in/x", want: []string{"secret:none", "mounts no such volume"}},
			"no variables":      {artifact: "s3://bucket/data.csv?credentials=environment -> /in/x", want: []string{"AWS_ACCESS_KEY_ID"}},
			"no web identity":   {artifact: "s3://bucket/data.csv?credentials=web-identity -> /in/x", want: []string{"AWS_WEB_IDENTITY_TOKEN_FILE"}},
			"customer's key":    {artifact: "s3://bucket/data.csv?sse=c -> /in/x", want: []string{"artifact x", "needs a store with https"}},
			"in a link's place": {artifact: "s3://bucket/data.csv -> /in/../etc/x", want: []string{`has ".."`}},
		} {
			t.Run(name, func(t *testing.T) {
				if tc.config == "" {
					tc.config = p.config()
				}
				if tc.more == nil {
					tc.more = oci.Compose()
				}
				_, err := p.create(tc.config, map[string]string{"x": tc.artifact}, []string{"exit", "0"}, tc.more)
				if err == nil {
					t.Fatal("it was created")
				}
				for _, want := range tc.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is missing in: %v", want, err)
					}
				}
				p.expectNothingLeft()
			})
		}
	})
}

// A container that waits for a store which does not answer, or for a program that does not run, can be killed, and goes
// when its shim is killed. If the program is killed, the read fails.
func TestRequestedArtifactsThatHang(t *testing.T) {
	stopped := func(p *requestingPod, _ *objectStore) { p.signal(syscall.SIGSTOP) }
	stalled := func(p *requestingPod, store *objectStore) { store.stall(p.t, "/bucket/data.csv") }
	takenOver := func(p *requestingPod, _ *objectStore) { p.takeOver() }
	killed := func(p *requestingPod, k *task) {
		kill(p.t, k, syscall.SIGKILL)
		k.expectCode(128 + 9)
		k.remove()
	}
	shimKilled := func(p *requestingPod, k *task) {
		killShim(p.t, []*task{k, p.leader}, p.server())
	}
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		for name, c := range map[string]struct {
			hang    func(p *requestingPod, store *objectStore)
			end     func(p *requestingPod, k *task)
			outputs bool // in the same pod
		}{
			"store":                            {hang: stalled, end: killed},
			"program":                          {hang: stopped, end: killed},
			"store, outputs":                   {hang: stalled, end: killed, outputs: true},
			"program, outputs":                 {hang: stopped, end: killed, outputs: true},
			"store, shim killed":               {hang: stalled, end: shimKilled},
			"program, shim killed":             {hang: stopped, end: shimKilled, outputs: true},
			"program, taken over":              {hang: takenOver, end: killed},
			"program, taken over, shim killed": {hang: takenOver, end: shimKilled},
			"program, killed itself":           {hang: stopped, end: func(p *requestingPod, k *task) { p.signal(syscall.SIGKILL); k.expectCode(1); k.remove() }},
		} {
			t.Run(name, func(t *testing.T) {
				store := serveObjects(t, map[string]string{"/bucket/data.csv": lazyData})
				p := requestingPodOf(t, node, store.Listener.Addr().String())
				artifacts := map[string]string{"file": "s3://bucket/data.csv -> /in/file"}
				if c.outputs {
					artifacts["result"] = "/results/x -> s3://bucket/x"
				}
				out := t.TempDir()
				volume := oci.WithMounts([]specs.Mount{{Destination: "/out", Type: "bind", Source: out, Options: []string{"rbind", "rw"}}})
				k, err := p.create(p.config(), artifacts, []string{"write", "/out/begun", "", ",", "read", "/in/file"}, volume)
				if err != nil {
					t.Fatal(err)
				}
				c.hang(p, store)
				k.start()
				waitFor(t, func() bool { _, err := os.Stat(out + "/begun"); return err == nil }, "the container")
				p.takeRequest()
				c.end(p, k)
				p.expectNothingLeft()
			})
		}
	})
}

// server returns the process that serves the pod's artifacts.
func (p *requestingPod) server() int {
	p.t.Helper()
	pids, err := p.leader.Pids(p.leader.ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, of := range pids {
		if of.Info != nil { // an exec
			return int(of.Pid)
		}
	}
	p.t.Fatalf("the processes of the pause container are %v", pids)
	return 0
}

func (p *requestingPod) signal(s syscall.Signal) {
	p.t.Helper()
	if err := syscall.Kill(p.server(), s); err != nil {
		p.t.Fatal(err)
	}
}
