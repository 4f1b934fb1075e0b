package test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testapiserver"
	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// executorImage is called as upstream's, and holds the real executor.
const executorImage = "quay.io/argoproj/argoexec:v4.0.2"

// Both run the containers of a workflow's pod in which Argo's executor runs: our shim with our own program, the
// stock shim with the real one.
var (
	ourExecutor  = way{"ours", runtime, executorImage, nil}
	realExecutor = way{"real", stock, executorImage, nil}
)

func withExecutor(t *testing.T, test func(t *testing.T, node *testnode.Node)) {
	t.Helper()
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		importTaskImages(t, node)
		if _, err := node.Client(t).GetImage(t.Context(), executorImage); err != nil {
			node.Import(t, testguest.Image(t, executorImage, testguest.ImageOpts{
				Files: map[string]string{"/bin/argoexec": realArgoexec(t)}, Dirs: []string{"/tmp"},
				Env: []string{"PATH=/usr/local/bin:/bin"}, WorkingDir: "/",
			}))
		}
		node.NoLeaks(t)
		test(t, node)
	})
}

// realArgoexec returns the path of the file.
func realArgoexec(t *testing.T) string {
	t.Helper()
	folders, err := testnode.Tools(t.Context(), "argo-4.0")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(folders[0], "argoexec")
}

// executorPod is a workflow's pod as its controller makes it, without its main container.
type executorPod struct {
	t      *testing.T
	way    way
	node   *testnode.Node
	leader *task
	volume string // at /var/run/argo
	staged string // at /argo/staging
	files  string // of the service account
	api    *testapiserver.Server

	annotations map[string]string // of the pod, more than its id
	mounts      []specs.Mount     // of its containers, more than the usual ones
	opts        []oci.SpecOpts    // of its containers
	patience    time.Duration     // for the creation of a container, 0 for any
}

func (w way) executorPod(t *testing.T, node *testnode.Node) *executorPod {
	t.Helper()
	p := &executorPod{t: t, way: w, node: node, volume: t.TempDir(), staged: t.TempDir(), files: t.TempDir(), api: testapiserver.New(t, nil)}
	p.leader = asNative.run(t, node, "sleep", "sleeping", leadingPod)
	for name, content := range map[string]string{"token": testapiserver.Token, "namespace": testapiserver.Namespace, "ca.crt": p.api.Certificate(), "termination-log": ""} {
		if err := os.WriteFile(filepath.Join(p.files, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// create makes one of the pod's containers, init or wait, with what the controller gives it.
func (p *executorPod) create(command string, env ...string) *task {
	p.t.Helper()
	k, err := p.tryCreate([]string{"argoexec", command, "--loglevel", "info", "--log-format", "text", "--gloglevel", "0"}, env...)
	if err != nil {
		p.t.Fatal(err)
	}
	return k
}

// begin runs the pod's init container.
func (p *executorPod) begin(template string) {
	p.t.Helper()
	initial := p.create("init", "ARGO_TEMPLATE="+template)
	initial.start()
	initial.expectCode(0)
}

func (p *executorPod) tryCreate(args []string, env ...string) (*task, error) {
	p.t.Helper()
	host, port, err := net.SplitHostPort(p.api.Listener.Addr().String())
	if err != nil {
		p.t.Fatal(err)
	}
	env = append([]string{
		"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port, "ARGO_POD_NAME=w-1", "ARGO_POD_UID=1", "ARGO_WORKFLOW_NAME=w",
		"ARGO_WORKFLOW_UID=2", "ARGO_NODE_ID=w-1", "ARGO_DEADLINE=0001-01-01T00:00:00Z", "ARGO_INCLUDE_SCRIPT_OUTPUT=true",
		"ARGO_PROGRESS_PATCH_TICK_DURATION=1m0s", "ARGO_PROGRESS_FILE_TICK_DURATION=3s",
	}, env...)
	limit := context.Background()
	if p.patience > 0 {
		ctx, cancel := context.WithTimeout(limit, p.patience)
		defer cancel()
		limit = ctx
	}
	return p.way.tryCreateWithin(limit, p.t, p.node, p.node.Client(p.t), args, oci.WithEnv(env), oci.WithHostNamespace(specs.NetworkNamespace), oci.Compose(p.opts...),
		oci.WithAnnotations(map[string]string{sandboxID: p.leader.container.ID(), "io.kubernetes.cri.image-name": executorImage}),
		oci.WithAnnotations(p.annotations), oci.WithMounts(p.mounts),
		oci.WithMounts([]specs.Mount{
			{Destination: argoDir, Type: "bind", Source: p.volume, Options: []string{"rbind", "rw"}},
			{Destination: "/dev/termination-log", Type: "bind", Source: filepath.Join(p.files, "termination-log"), Options: []string{"bind", "rw"}},
			{Destination: "/argo/staging", Type: "bind", Source: p.staged, Options: []string{"rbind", "rw"}},
			{Destination: "/var/run/secrets/kubernetes.io/serviceaccount", Type: "bind", Source: p.files, Options: []string{"rbind", "ro"}},
		}))
}

// executorScene is a step of a workflow, as its init and wait containers see it.
type executorScene struct {
	template string
	env      []string          // of wait
	files    map[string]string // what the main containers leave in the volume, before their exit codes
	until    string            // a file of the volume that comes before their ends
	ends     []string          // the main containers that end
	answer   testapiserver.Answer
	exists   bool           // the WorkflowTaskResult, from the start
	signal   syscall.Signal // to wait, in place of the main containers' ends
}

const (
	scriptTemplate = `{"name":"t","inputs":{},"outputs":{"parameters":[{"name":"p","valueFrom":{"path":"/tmp/p"}}]},"metadata":{},` +
		`"script":{"name":"","image":"x","command":["/app.wasm"],"resources":{},"source":"print me"}}`
	onVolumeTemplate = `{"name":"t","inputs":{},"outputs":{"parameters":[{"name":"p","valueFrom":{"path":"/v/none","default":"fallen back"}}]},"metadata":{},` +
		`"container":{"name":"","image":"x","resources":{},"volumeMounts":[{"name":"v","mountPath":"/v"}]}}`
	setTemplate = `{"name":"t","inputs":{},"outputs":{},"metadata":{},"containerSet":{"containers":[` +
		`{"name":"main","image":"x","resources":{}},{"name":"other","image":"x","resources":{}}]}}`
)

var executorScenes = map[string]executorScene{
	"a script's result and a parameter": {
		template: scriptTemplate, ends: []string{"main"},
		files: map[string]string{"ctr/main/stdout": "result\n", "outputs/parameters/tmp/p": "value\n"},
	},
	"a long result": {
		template: setTemplate, ends: []string{"main", "other"},
		files: map[string]string{"ctr/main/stdout": "cut off" + strings.Repeat("0123456789abcdef", 16<<10) + "\n"},
	},
	"a parameter that is not there": {
		template: scriptTemplate, ends: []string{"main"}, files: map[string]string{"ctr/main/stdout": "no newline"},
	},
	"a default":   {template: onVolumeTemplate, ends: []string{"main"}, files: map[string]string{"ctr/main/stdout": ""}},
	"no result":   {template: setTemplate, ends: []string{"main", "other"}},
	"a deadline":  {template: setTemplate, env: []string{"ARGO_DEADLINE=2020-01-01T00:00:00Z"}, until: "ctr/other/signal", files: map[string]string{"ctr/main/stdout": ""}, ends: []string{"main", "other"}},
	"it is ended": {template: setTemplate, files: map[string]string{"ctr/main/stdout": "so far"}, signal: syscall.SIGTERM},
	"it may not report": {
		template: setTemplate, files: map[string]string{"ctr/main/stdout": ""}, ends: []string{"main", "other"},
		answer: func(int, testapiserver.Request) (int, string) {
			return http.StatusForbidden, testapiserver.Failure(403, "Forbidden", "it is refused")
		},
	},
	"the result is there already": {
		template: setTemplate, files: map[string]string{"ctr/main/stdout": ""}, ends: []string{"main", "other"},
		exists: true,
	},
}

// play plays a scene and returns what of it others see.
func (p *executorPod) play(s executorScene) string {
	p.t.Helper()
	p.api.Answer(s.answer)
	if s.exists {
		p.api.Create()
	}
	initial := p.create("init", "ARGO_TEMPLATE="+s.template)
	initial.start()
	begun := initial.code()
	wait := p.create("wait", s.env...)
	wait.start()
	waitFor(p.t, func() bool { return len(p.api.Seen()) > 0 }, "the first report")
	p.runs(wait, p.way.name == ourExecutor.name && p.annotations == nil)
	for name, content := range s.files {
		p.leave(name, content)
	}
	if s.until != "" {
		waitFor(p.t, func() bool { _, err := os.Stat(filepath.Join(p.volume, s.until)); return err == nil }, s.until)
	}
	for _, name := range s.ends {
		p.leave("ctr/"+name+"/exitcode", "0")
	}
	if s.signal != 0 {
		kill(p.t, wait, s.signal)
	}
	ended := wait.code()
	var seen strings.Builder
	fmt.Fprintf(&seen, "init ended with %d, wait with %d\n", begun, ended)
	message, err := os.ReadFile(filepath.Join(p.files, "termination-log"))
	if err != nil {
		p.t.Fatal(err)
	}
	fmt.Fprintf(&seen, "termination message %q\n", message)
	for _, r := range p.api.Seen() {
		fmt.Fprintln(&seen, r.Method, r.Path, r.ContentType, r.Body)
	}
	for line := range strings.Lines(emissary{volume: p.volume}.left(p.t)) {
		// argoexec may send SIGKILL, too, when the containers have just ended after SIGTERM: two of its threads race.
		// Our program copies argoexec later (TestArgoexecIsCopiedForNativeContainers).
		if name, _, _ := strings.Cut(line, " "); filepath.Base(name) != "signal" && name != "argoexec" {
			seen.WriteString(line)
		}
	}
	seen.WriteString(emissary{volume: p.staged}.left(p.t))
	return seen.String()
}

// runs checks whether our program or the real executor runs in a container.
func (p *executorPod) runs(k *task, ours bool) {
	p.t.Helper()
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", k.Pid()))
	if err != nil {
		p.t.Fatal(err)
	}
	// It is started from a file that is mounted nowhere, which the daemon opened as "worker".
	if got := strings.TrimSpace(string(name)); (got == "worker") != ours || (got == "argoexec") == ours {
		p.t.Errorf("the container runs %q", got)
	}
}

// leave writes a file into the volume, whole from the moment it is there.
func (p *executorPod) leave(name, content string) {
	p.t.Helper()
	path := filepath.Join(p.volume, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// A step's init and wait containers end the same, leave the same files and report the same, whether our program runs
// there or the real executor; with ours there is no stock shim.
func TestExecutorIsAsArgos(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		for name, scene := range executorScenes {
			t.Run(name, func(t *testing.T) {
				got := ourExecutor.executorPod(t, node).play(scene)
				if want := realExecutor.executorPod(t, node).play(scene); got != want {
					t.Errorf("with our program:\n%.4000s\nwith the real executor:\n%.4000s", got, want)
				}
			})
		}
	})
}

// A pod's annotation leaves its init and wait containers to the real executor, and they end as before.
func TestExecutorIsLeftByAnnotation(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		scene := executorScenes["a script's result and a parameter"]
		p := ourExecutor.executorPod(t, node)
		p.annotations = map[string]string{"wasm.shim/native-argoexec": "true"}
		got := p.play(scene)
		if want := realExecutor.executorPod(t, node).play(scene); got != want {
			t.Errorf("with the annotation:\n%.4000s\nwith the real executor:\n%.4000s", got, want)
		}
	})
}

// In a pod whose init was stood in for, argoexec is in the volume from the first native container on that runs it from
// there, and not before.
func TestArgoexecIsCopiedForNativeContainers(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		p := ourExecutor.executorPod(t, node)
		p.begin(setTemplate)
		copied := filepath.Join(p.volume, "argoexec")
		help := []string{argoDir + "/argoexec", "help"}
		if _, err := p.tryCreate(help); err == nil || !strings.Contains(err.Error(), "done in the pod's wait container") {
			t.Errorf("without a wait container: %v", err)
		}
		wait := p.create("wait")
		wait.start()
		waitFor(t, func() bool { return len(p.api.Seen()) > 0 }, "the first report")
		other, err := p.tryCreate([]string{"argoexec", "help"}) // it runs that of its image
		if err != nil {
			t.Fatal(err)
		}
		other.start()
		other.expectCode(0)
		if _, err := os.Lstat(copied); err == nil {
			t.Error("argoexec is in the volume before a container needs it")
		}
		native := make([]*task, 3)
		var all sync.WaitGroup
		for i := range native {
			all.Go(func() {
				k, err := p.tryCreate(help)
				if err != nil {
					t.Error(err)
					return
				}
				native[i] = k
			})
		}
		all.Wait()
		for _, k := range native {
			if k != nil {
				k.start()
				k.expectCode(0)
			}
		}
		info, err := os.Lstat(copied)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o555 || info.Size() < 50<<20 {
			t.Errorf("argoexec is %v of %d bytes", info.Mode(), info.Size())
		}
		p.leave("ctr/main/exitcode", "0")
		p.leave("ctr/other/exitcode", "0")
		p.leave("ctr/main/stdout", "")
		wait.expectCode(0)
	})
}

// A wait container ends by what Argo's controller runs in it.
func TestExecutorIsKilled(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		p := ourExecutor.executorPod(t, node)
		p.begin(scriptTemplate)
		wait := p.create("wait")
		wait.start()
		spec, err := wait.container.Spec(wait.ctx)
		if err != nil {
			t.Fatal(err)
		}
		spec.Process.Args = []string{"sh"}
		if _, err := wait.Exec(wait.ctx, "shell", spec.Process, cio.NullIO); err == nil || !strings.Contains(err.Error(), "runs only argoexec kill") {
			t.Errorf("exec of a shell: %v", err)
		}
		if code, printed := wait.finish(wait.exec([]string{"argoexec", "kill", "15", "1"}, nil)); code != 0 {
			t.Errorf("kill ended with %d and printed %q", code, printed)
		}
		wait.code()
	})
}

// Another init container of the pod replaces the template by one that sends the pod's secrets elsewhere. The wait
// container does not follow it.
func TestExecutorKeepsItsTemplate(t *testing.T) {
	withExecutor(t, func(t *testing.T, node *testnode.Node) {
		p := ourExecutor.executorPod(t, node)
		p.begin(setTemplate)
		stolen := strings.Replace(setTemplate, `"outputs":{}`, `"outputs":{"artifacts":[{"name":"a","path":"/v/a","http":{"url":"`+p.api.URL+`/stolen",`+
			`"auth":{"basicAuth":{"usernameSecret":{"name":"s3","key":"access"},"passwordSecret":{"name":"s3","key":"secret"}}}}}]}`, 1)
		if err := os.Remove(filepath.Join(p.volume, "template")); err != nil {
			t.Fatal(err)
		}
		p.leave("template", stolen)
		wait := p.create("wait")
		wait.start()
		wait.expectCode(2)
		message, err := os.ReadFile(filepath.Join(p.files, "termination-log"))
		if err != nil || !strings.Contains(string(message), "another container of the pod has replaced it") {
			t.Errorf("the termination message is %q, %v", message, err)
		}
		if asked := p.api.Seen(); len(asked) > 0 {
			t.Errorf("asked %v", asked)
		}
	})
}
