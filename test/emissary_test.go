package test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

const (
	argoWasmImage   = "example.com/argo/wasm:latest"
	argoNativeImage = "example.com/argo/native:latest"
	argoDir         = "/var/run/argo"
)

// The same program for both runtimes.
var (
	argoWasm   = way{"wasm", runtime, argoWasmImage, nil}
	argoNative = way{"stock", stock, argoNativeImage, nil}
)

func (w way) probe() string {
	if w.image == argoWasmImage {
		return "/app.wasm"
	}
	return "/app"
}

func importArgoImages(t *testing.T, node *testnode.Node) {
	t.Helper()
	if _, err := node.Client(t).GetImage(t.Context(), argoNativeImage); err == nil {
		return
	}
	for ref, files := range map[string]map[string]string{
		argoWasmImage:   {"/app.wasm": testguest.Build(t, "probe")},
		argoNativeImage: {"/app": testguest.Build(t, "probe-native")},
	} {
		node.Import(t, testguest.Image(t, ref, testguest.ImageOpts{Files: files, Dirs: []string{"/tmp"}}))
	}
}

// emissary is a container as Argo's controller makes it: Argo's init container has put the template and the
// real argoexec into a volume that all containers of the pod share.
type emissary struct {
	volume string
	*task
}

func (w way) emissary(t *testing.T, node *testnode.Node, template string, env, args []string, opts ...oci.SpecOpts) emissary {
	t.Helper()
	volume := t.TempDir()
	if err := os.Chmod(volume, 0o777); err != nil {
		t.Fatal(err)
	}
	folders, err := testnode.Tools(t.Context(), "argo-4.0")
	if err != nil {
		t.Fatal(err)
	}
	argoexec, err := os.ReadFile(filepath.Join(folders[0], "argoexec"))
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]struct {
		content []byte
		mode    os.FileMode
	}{"argoexec": {argoexec, 0o755}, "template": {[]byte(template), 0o444}} {
		if err := os.WriteFile(filepath.Join(volume, name), file.content, file.mode); err != nil {
			t.Fatal(err)
		}
	}
	command := append([]string{argoDir + "/argoexec", "emissary", "--loglevel", "info", "--log-format", "text", "--", w.probe()}, args...)
	shared := oci.WithMounts([]specs.Mount{{Destination: argoDir, Type: "bind", Source: volume, Options: []string{"rbind", "rw"}}})
	opts = append(opts, shared, oci.WithEnv(append([]string{"ARGO_CONTAINER_NAME=main"}, env...)))
	k := w.createArgs(t, node, command, opts...)
	return emissary{volume, k}
}

// left lists what the container left in the volume: modes and, of small files, contents.
func (e emissary) left(t *testing.T) string {
	t.Helper()
	var found strings.Builder
	err := filepath.WalkDir(e.volume, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == e.volume {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(e.volume, path)
		fmt.Fprintf(&found, "%s %s", name, info.Mode())
		if info.Mode().IsRegular() && name != "argoexec" && !strings.HasSuffix(name, ".tgz") {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&found, " %q", content)
		}
		found.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found.String()
}

func (e emissary) exitCode(t *testing.T) string {
	t.Helper()
	code, err := os.ReadFile(filepath.Join(e.volume, "ctr/main/exitcode"))
	if err != nil {
		t.Error(err)
	}
	return string(code)
}

const plainTemplate = `{"name":"t","container":{"name":"main","image":"x"}}`

// Argo's containers end with the same codes and leave the same files in both cases: the real emissary runs a
// native program, or the worker does the emissary's work for the same program as Wasm.
func TestEmissaryIsAsArgos(t *testing.T) {
	outputs := `{"name":"t","container":{"name":"main"},"outputs":{
		"parameters":[{"name":"p","valueFrom":{"path":"/tmp/out"}},{"name":"none","valueFrom":{"path":"/tmp/none","default":"x"}}],
		"artifacts":[{"name":"a","path":"/tmp/out"},{"name":"b","path":"/tmp","optional":true}]}}`
	cases := []struct {
		name, template string
		env, args      []string
	}{
		{"success", plainTemplate, nil, []string{"args", "a", "b c"}},
		{"exit code", plainTemplate, nil, []string{"exit", "42"}},
		{"outputs", outputs, nil, []string{"write", "/tmp/out", "value"}},
		{"captured output", plainTemplate, []string{"ARGO_INCLUDE_SCRIPT_OUTPUT=true"}, []string{"args", "captured"}},
		{"retries", `{"name":"t","containerSet":{"retryStrategy":{"retries":"2"},"containers":[{"name":"main","image":"x"}]}}`,
			[]string{"ARGO_INCLUDE_SCRIPT_OUTPUT=true"}, []string{"exit", "3"}},
		{"bad template", `{"name":`, nil, []string{"exit", "0"}},
	}
	withEmissary(t, func(t *testing.T, node *testnode.Node) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel() // the real emissary sleeps for most of its time
				ours := argoWasm.emissary(t, node, c.template, c.env, c.args)
				theirs := argoNative.emissary(t, node, c.template, c.env, c.args)
				ours.start()
				theirs.start()
				if got, want := ours.code(), theirs.code(); got != want {
					t.Errorf("ended with %d, Argo's with %d: %s", got, want, ours.output)
				}
				got := strings.ReplaceAll(ours.left(t), argoWasm.probe(), argoNative.probe())
				if want := theirs.left(t); got != want {
					t.Errorf("left\n%s\nArgo's left\n%s", got, want)
				}
			})
		}
	})
}

// A guest can read the files that Argo's containers exchange, but cannot write them, except its progress file.
func TestEmissaryVolumeIsReadOnlyForTheGuest(t *testing.T) {
	withEmissary(t, func(t *testing.T, node *testnode.Node) {
		for _, args := range [][]string{
			{"write", argoDir + "/ctr/main/exitcode", "0"}, {"symlink", "/etc/passwd", argoDir + "/outputs"}, {"rm", argoDir + "/template"},
		} {
			e := argoWasm.emissary(t, node, plainTemplate, nil, args)
			e.start()
			if e.code() == 0 {
				t.Errorf("%q succeeded: %s", args, e.output)
			}
		}
		e := argoWasm.emissary(t, node, plainTemplate, []string{"ARGO_PROGRESS_FILE=" + argoDir + "/progress"}, []string{"write", argoDir + "/progress", "50/100"})
		e.start()
		e.expectCode(0)
		if left := e.left(t); !strings.Contains(left, `progress -rw-rw-rw- "50/100"`) {
			t.Errorf("progress was not reported: %s", left)
		}
		e = argoWasm.emissary(t, node, plainTemplate, nil, []string{"read", argoDir + "/template"})
		e.start()
		e.expectCode(0)
		if !strings.Contains(e.output.String(), plainTemplate) {
			t.Errorf("read %q", e.output)
		}
	})
}

// A link that the guest leaves at the path of an output is resolved only within its own container's files.
func TestEmissaryFollowsNoLinkOut(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	template := `{"name":"t","container":{"name":"main"},"outputs":{
		"parameters":[{"name":"p","valueFrom":{"path":"/tmp/link"}}],"artifacts":[{"name":"a","path":"/tmp/link","archive":{"none":{}}}]}}`
	withEmissary(t, func(t *testing.T, node *testnode.Node) {
		for _, target := range []string{secret, strings.Repeat("../", 20) + secret, "/proc/self/exe", "/worker", "/module", "/proc/1/root" + secret} {
			e := argoWasm.emissary(t, node, template, nil, []string{"symlink", target, "/tmp/link"})
			e.start()
			e.code()
			if left := e.left(t); strings.Contains(left, "secret of") || strings.Contains(left, "outputs/parameters/tmp/link -") {
				t.Errorf("a link to %s led to\n%s", target, left)
			}
		}
	})
}

// Argo stops a container by an exec of argoexec's kill command, or by a signal.
func TestEmissaryIsStopped(t *testing.T) {
	withEmissary(t, func(t *testing.T, node *testnode.Node) {
		stops := map[string]func(e emissary){
			"kill command": func(e emissary) {
				// The end of process 1 kills everything that is left in its namespace, also Argo's own command.
				code, output := e.finish(e.exec([]string{argoDir + "/argoexec", "kill", "15", "1"}, nil))
				if code != 0 && code != 137 || output != "killing 1 with terminated\n" {
					t.Errorf("argoexec kill ended with %d: %q", code, output)
				}
			},
			"signal": func(e emissary) { kill(t, e.task, syscall.SIGTERM) },
			"signal file": func(e emissary) {
				if err := os.WriteFile(filepath.Join(e.volume, "ctr/main/signal"), []byte("15"), 0o666); err != nil {
					t.Error(err)
				}
			},
		}
		for name, stop := range stops {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var codes []string
				for _, w := range []way{argoWasm, argoNative} {
					e := w.emissary(t, node, plainTemplate, nil, []string{"loop"})
					e.start()
					e.output.await(t, "looping")
					stop(e)
					if w.name == argoNative.name {
						e.remind(t)
					}
					codes = append(codes, fmt.Sprint(e.code(), " ", e.exitCode(t)))
				}
				if codes[0] != codes[1] {
					t.Errorf("ended with %s, Argo's with %s", codes[0], codes[1])
				}
			})
		}
	})
}

// remind signals the real argoexec again from time to time, until it has ended. argoexec keeps one signal at a
// time and loses a signal that comes while that one is a signal of the Go runtime.
func (e emissary) remind(t *testing.T) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Second)
	defer ticker.Stop()
	waitFor(t, func() bool {
		select {
		case <-ticker.C:
			if err := e.Kill(e.ctx, syscall.SIGTERM); err != nil && !errdefs.IsNotFound(err) {
				t.Error(err)
			}
		default:
		}
		return e.status() == client.Stopped
	}, "the end of Argo's emissary")
}

// The wait container sees that main has ended, also when something kills the worker.
func TestEmissaryExitCodeIsNeverMissing(t *testing.T) {
	withEmissary(t, func(t *testing.T, node *testnode.Node) {
		t.Run("killed", func(t *testing.T) {
			e := argoWasm.emissary(t, node, plainTemplate, nil, []string{"loop"})
			e.start()
			e.output.await(t, "looping")
			kill(t, e.task, syscall.SIGKILL)
			e.expectCode(137)
			if got := e.exitCode(t); got != "137" {
				t.Errorf("the exit code file says %q", got)
			}
		})
		t.Run("shim killed", func(t *testing.T) {
			e := argoWasm.emissary(t, node, plainTemplate, nil, []string{"loop"})
			e.start()
			e.output.await(t, "looping")
			if err := syscall.Kill(int(e.connect().ShimPid), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			e.awaitRemoval()
			if got := e.exitCode(t); got != "137" {
				t.Errorf("the exit code file says %q", got)
			}
		})
		t.Run("out of memory", func(t *testing.T) {
			e := argoWasm.emissary(t, node, plainTemplate, nil, []string{"fill", "/fill/file"}, fillMount, oci.WithMemoryLimit(64<<20))
			e.start()
			e.expectCode(137)
			if got := e.exitCode(t); got != "137" {
				t.Errorf("the exit code file says %q", got)
			}
		})
	})
}

func withEmissary(t *testing.T, test func(t *testing.T, node *testnode.Node)) {
	t.Helper()
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		node.NoLeaks(t)
		test(t, node)
	})
}
