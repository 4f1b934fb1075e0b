package step_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
	"github.com/wasmshim/containerd-shim-wasm/internal/testapiserver"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testoutput"
	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
)

// versions of argoexec to compare with, as hack/tools names them.
var versions = []string{"3.6", "3.7", "4.0"}

// tools are the paths of argoexec by version.
var tools = sync.OnceValues(func() (map[string]string, error) {
	names := make([]string, len(versions))
	for i, version := range versions {
		names[i] = "argo-" + version
	}
	folders, err := testnode.Tools(context.Background(), names...)
	if err != nil {
		return nil, err
	}
	tools := map[string]string{}
	for i, version := range versions {
		tools[version] = folders[i] + "/argoexec"
	}
	return tools, nil
})

// program builds the driver, without cgo as wasm-argoexec, so that it runs in an empty root.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wasm-argoexec")
	if err != nil {
		return "", err
	}
	built = dir
	return repo.Program("argo/executor/step/testdata/driver", dir)
})

// built is where program has built.
var built string

func TestMain(m *testing.M) {
	syscall.Umask(0o022) // containerd's
	flag.Parse()
	// Most scenes wait, for instance between the attempts of the real argoexec.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	code := m.Run()
	stopS3()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// world is the root of a container of init or wait, with the volumes of its pod.
type world struct {
	t      *testing.T
	root   string
	server *testapiserver.Server
	bucket *bucket // nil if the scene has none
	user   uint32
	cmd    *exec.Cmd
	output testoutput.Buffer
	ended  chan struct{}
}

func newWorld(t *testing.T, argoexec string, answer testapiserver.Answer) *world {
	t.Helper()
	w := &world{t: t, root: t.TempDir(), server: testapiserver.New(t, answer), ended: make(chan struct{})}
	for _, dir := range []string{"bin", "dev", "proc", "root", "tmp", "var/run/argo", "argo/staging", inputsDir, "mainctrfs", "stand-in"} {
		w.must(os.MkdirAll(w.path(dir), 0o755))
	}
	w.must(os.Chmod(w.path("var/run/argo"), 0o777))
	w.link(argoexec, "bin/argoexec")
	w.write("dev/termination-log", "")
	const account = "var/run/secrets/kubernetes.io/serviceaccount/"
	w.write(account+"token", testapiserver.Token)
	w.write(account+"namespace", testapiserver.Namespace)
	w.write(account+"ca.crt", w.server.Certificate())
	w.write("argo/secret/s3/access", tests3.Access)
	w.write("argo/secret/s3/secret", tests3.Secret)
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.root, name) }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(name, content string) {
	w.t.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	w.must(os.WriteFile(w.path(name), []byte(content), 0o644))
}

// argo writes a file of the volume, in one step.
func (w *world) argo(name, content string) {
	w.t.Helper()
	w.write("tmp/part", content)
	name = w.path("var/run/argo/" + name)
	w.must(os.MkdirAll(filepath.Dir(name), 0o755))
	w.must(os.Rename(w.path("tmp/part"), name))
}

// exit ends a main container.
func (w *world) exit(container string, code string) {
	w.t.Helper()
	w.argo("ctr/"+container+"/exitcode", code)
}

func (w *world) removeAll(name string) { w.must(os.RemoveAll(w.path(name))) }

func (w *world) symlink(target, name string) {
	w.t.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	w.must(os.Symlink(target, w.path(name)))
}

func (w *world) fifo(name string) {
	w.t.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	w.must(unix.Mkfifo(w.path(name), 0o666))
}

// link makes a hard link, or a copy where that cannot be.
func (w *world) link(from, to string) {
	w.t.Helper()
	err := os.Link(from, w.path(to))
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EPERM) {
		var data []byte
		if data, err = os.ReadFile(from); err == nil {
			// What a child forked meanwhile has open for writing cannot be executed.
			syscall.ForkLock.RLock()
			err = os.WriteFile(w.path(to), data, 0o755)
			syscall.ForkLock.RUnlock()
		}
	}
	w.must(err)
}

// start starts a program with argoexec's command line.
func (w *world) start(file string, verb []string, env []string) {
	w.t.Helper()
	host, port := w.address()
	env = first(environment(env...))
	for i, variable := range env {
		switch {
		case strings.HasPrefix(variable, "KUBERNETES_SERVICE_HOST="):
			env[i] = "KUBERNETES_SERVICE_HOST=" + host
		case strings.HasPrefix(variable, "KUBERNETES_SERVICE_PORT="):
			env[i] = "KUBERNETES_SERVICE_PORT=" + port
		}
	}
	w.cmd = &exec.Cmd{
		Path: file, Args: append(append([]string{"argoexec"}, verb...), logFlags...), Env: env, Dir: "/",
		Stdout: &w.output, Stderr: &w.output, SysProcAttr: &syscall.SysProcAttr{Chroot: w.root},
	}
	if w.user != 0 {
		w.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: w.user, Gid: w.user}
		for _, name := range []string{"", "dev/termination-log", "var/run/argo", "argo/staging", inputsDir} {
			w.must(os.Chown(w.path(name), int(w.user), int(w.user)))
		}
	}
	w.must(w.cmd.Start())
	go func() { _ = w.cmd.Wait(); close(w.ended) }()
	w.t.Cleanup(func() { _ = w.cmd.Process.Kill(); <-w.ended })
}

// first keeps the first of variables with the same name: os/exec keeps the last.
func first(env []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(env, func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		again := seen[name]
		seen[name] = true
		return again
	})
}

func (w *world) address() (string, string) {
	at, err := url.Parse(w.server.URL)
	w.must(err)
	host, port, err := net.SplitHostPort(at.Host)
	w.must(err)
	return host, port
}

// patience bounds every wait.
const patience = 2 * time.Minute

// await waits until a condition holds.
func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-deadline:
			w.t.Fatalf("waited in vain for %s", what)
		case <-w.ended:
			if !ok() {
				w.t.Fatalf("ended before %s:\n%s", what, &w.output)
			}
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// awaitRequests waits for a number of requests.
func (w *world) awaitRequests(n int) {
	w.t.Helper()
	w.await("requests", func() bool { return len(w.server.Seen()) >= n })
}

// awaitEnd waits for the end of the program.
func (w *world) awaitEnd() {
	w.t.Helper()
	select {
	case <-w.ended:
	case <-time.After(patience):
		w.t.Fatal("the program does not end")
	}
}

// outcome is what a run leaves.
type outcome struct {
	exit     int
	message  string
	files    map[string]string
	objects  map[string]string // in S3
	requests []testapiserver.Request
	log      string
	took     time.Duration
}

func (w *world) finish(began time.Time) outcome {
	w.t.Helper()
	w.awaitEnd()
	o := outcome{exit: w.cmd.ProcessState.ExitCode(), requests: w.server.Seen(), log: w.output.String(), files: map[string]string{}, took: time.Since(began)}
	message, err := os.ReadFile(w.path("dev/termination-log"))
	w.must(err)
	o.message = w.plain(string(message))
	for i, r := range o.requests {
		text, err := json.Marshal(r.Body)
		w.must(err)
		o.requests[i].Body = nil
		w.must(json.Unmarshal([]byte(w.plain(string(text))), &o.requests[i].Body))
	}
	if w.bucket != nil {
		o.objects = w.bucket.objects()
	}
	for _, dir := range []string{"var/run/argo", "argo/staging", "argo/inputs", "mainctrfs", "root"} {
		w.look(dir, o.files)
	}
	return o
}

// plain puts placeholders in the place of what is this run's alone.
func (w *world) plain(text string) string {
	if w.bucket == nil {
		return text
	}
	return w.bucket.plain(text)
}

// look describes the files below a directory.
func (w *world) look(dir string, files map[string]string) {
	w.t.Helper()
	if _, err := os.Lstat(w.path(dir)); errors.Is(err, fs.ErrNotExist) {
		return
	}
	w.must(filepath.WalkDir(w.path(dir), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(w.root, name)
		files[rel] = info.Mode().String()
		if target, err := os.Readlink(name); err == nil {
			files[rel] += " " + target
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		if rel == "var/run/argo/argoexec" {
			// Another one for each version.
			files[rel] += fmt.Sprintf(" %v", info.Size() > 50<<20)
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if rel == "var/run/argo/template" {
			data = canonical([]byte(w.plain(string(data))))
		}
		files[rel] += " " + short(data)
		return nil
	}))
}

// canonical sorts the keys of JSON.
func canonical(data []byte) []byte {
	var value any
	if json.Unmarshal(data, &value) != nil {
		return data
	}
	data, _ = json.Marshal(value)
	return data
}

func short(data []byte) string {
	if len(data) <= 400 {
		return fmt.Sprintf("%q", data)
	}
	return fmt.Sprintf("%d bytes, %x", len(data), sha256.Sum256(data))
}

// logFlags are those that Argo's controller sets.
var logFlags = []string{"--loglevel", "info", "--log-format", "text", "--gloglevel", "0"}

// environment is what Argo's controller and the kubelet set.
func environment(more ...string) []string {
	return append(more,
		"PATH=/bin", "HOME=/root", "HOSTNAME=pod-1", "ARGO_CONTAINER_NAME=wait", "ARGO_POD_NAME=pod-1", "ARGO_POD_UID=uid-1",
		"ARGO_WORKFLOW_NAME=wf-1", "ARGO_WORKFLOW_UID=uid-2", "ARGO_NODE_ID=node-1", "ARGO_INCLUDE_SCRIPT_OUTPUT=false",
		"ARGO_DEADLINE=0001-01-01T00:00:00Z", "ARGO_PROGRESS_FILE=/var/run/argo/progress", "ARGO_PROGRESS_PATCH_TICK_DURATION=1m0s",
		"ARGO_PROGRESS_FILE_TICK_DURATION=3s", "KUBERNETES_SERVICE_HOST=10.0.0.1", "KUBERNETES_SERVICE_PORT=443",
		"ARGO_SERVER_PORT_2746_TCP_ADDR=10.0.0.2", "ARGO_SERVER_SERVICE_PORT_WEB=2746", "ARGO_SERVER_SERVICE_HOST=10.0.0.2",
		"ARGO_SERVER_PORT=tcp://10.0.0.2:2746")
}

const containerTemplate = `{"name":"a","inputs":{},"outputs":{},"metadata":{},"container":{"name":"","image":"i","resources":{}}}`
