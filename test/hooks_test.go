package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// hookLog is the file in which the hooks of one container record their runs.
type hookLog struct{ script, file string }

func newHookLog(t testing.TB) hookLog {
	t.Helper()
	dir := t.TempDir()
	l := hookLog{filepath.Join(dir, "hook"), filepath.Join(dir, "log")}
	script := "#!/bin/sh\nstate=$(cat)\npid=$(printf %s \"$state\" | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')\n" +
		"printf '%s\\t%s\\t%s\\t%s\\n' \"$1\" \"$MARK\" \"$(readlink /proc/$pid/ns/net)\" \"$state\" >>" + l.file + "\n"
	if err := os.WriteFile(l.script, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l hookLog) hook(name string) specs.Hook {
	return specs.Hook{Path: l.script, Args: []string{"hook", name}, Env: []string{"PATH=/usr/bin:/bin", "MARK=of the hook"}}
}

// hooked is one line of the log.
type hooked struct {
	name, mark, network string
	state               specs.State
}

func (l hookLog) read(t testing.TB) []hooked {
	t.Helper()
	text, err := os.ReadFile(l.file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var all []hooked
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(line, "\t", 4)
		h := hooked{name: fields[0], mark: fields[1], network: fields[2]}
		if err := json.Unmarshal([]byte(fields[3]), &h.state); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, h)
	}
	return all
}

// names returns the hooks that have run, each with the status from its state.
func (l hookLog) names(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, h := range l.read(t) {
		names = append(names, h.name+" "+string(h.state.Status))
	}
	return names
}

func withHooks(hooks specs.Hooks) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		s.Hooks = &hooks
		s.Annotations = map[string]string{"test.example/of": "the container"}
		return nil
	}
}

// Hooks of the runtime's namespaces run when runc runs them and get the same state as from runc. The exception
// is poststart: runc 1.4 runs it when it creates the container.
func TestHooks(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		run := func(w way) []string {
			l := newHookLog(t)
			k := w.create(t, node, "sleep", withHooks(specs.Hooks{
				//lint:ignore SA1019 prestart is deprecated, and still sent
				Prestart:      []specs.Hook{l.hook("prestart")},
				CreateRuntime: []specs.Hook{l.hook("createRuntime 1"), l.hook("createRuntime 2")},
				Poststart:     []specs.Hook{l.hook("poststart")},
				Poststop:      []specs.Hook{l.hook("poststop 1"), l.hook("poststop 2")},
			}))
			created := l.names(t)
			want := []string{"prestart creating", "createRuntime 1 creating", "createRuntime 2 creating"}
			if !slices.Equal(created[:min(3, len(created))], want) || w.name == asWasm.name && len(created) != len(want) {
				t.Errorf("%s: at creation %q, want %q", w.name, created, want)
			}
			network := namespaceOf(t, int(k.Pid()), "net")
			k.start()
			if started := l.names(t); len(started) != 4 {
				t.Errorf("%s: at the start %q", w.name, started)
			}
			k.output.await(t, "sleeping")
			k.stop()
			all := l.read(t)
			for _, h := range all {
				if h.mark != "of the hook" || h.state.ID != k.container.ID() || h.state.Bundle != node.Bundle(k.container.ID()) || h.state.Version == "" {
					t.Errorf("%s: %+v", w.name, h)
				}
				if h.state.Annotations["test.example/of"] != "the container" {
					t.Errorf("%s: %s: annotations %v", w.name, h.name, h.state.Annotations)
				}
				if h.state.Status != specs.StateStopped && (h.state.Pid != int(k.Pid()) || h.network != network) {
					t.Errorf("%s: %s was told of process %d in %s, want %d in %s", w.name, h.name, h.state.Pid, h.network, k.Pid(), network)
				}
			}
			return l.names(t)
		}
		want := []string{"prestart creating", "createRuntime 1 creating", "createRuntime 2 creating", "poststart running", "poststop 1 stopped", "poststop 2 stopped"}
		if got := run(asWasm); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		want[3] = "poststart created"
		if got := run(asStock); !slices.Equal(got, want) {
			t.Errorf("runc: %q, want %q", got, want)
		}
	})
}

func failing(script string, timeout *int) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Timeout: timeout}
}

// A hook that fails makes its operation fail with the hook's own message, and the rest is rolled back. A
// poststop hook cannot make anything fail.
func TestHooksThatFail(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		kinds := map[string]func(all *specs.Hooks, list []specs.Hook){
			"createRuntime":   func(all *specs.Hooks, list []specs.Hook) { all.CreateRuntime = list },
			"createContainer": func(all *specs.Hooks, list []specs.Hook) { all.CreateContainer = list },
		}
		second := 1
		for name, c := range map[string]struct {
			hook specs.Hook
			want []string
		}{
			"code":    {failing("echo no network >&2; exit 3", nil), []string{"hook /bin/sh", "exit status 3", "no network"}},
			"timeout": {failing("echo waiting; sleep 1000", &second), []string{"hook /bin/sh", "timeout of 1s", "waiting"}},
			"missing": {specs.Hook{Path: "/no/such/hook"}, []string{"hook /no/such/hook", "no such file"}},
			"flood":   {failing("yes | head -c 1000000; exit 4", nil), []string{"exit status 4"}},
		} {
			for kind, set := range kinds {
				t.Run(kind+" "+name, func(t *testing.T) {
					node.NoLeaks(t)
					l := newHookLog(t)
					all := specs.Hooks{Poststop: []specs.Hook{l.hook("poststop")}}
					set(&all, []specs.Hook{c.hook, l.hook("never")})
					_, err := asWasm.tryCreate(t, node, node.Client(t), asWasm.programs["sleep"], withHooks(all))
					if err == nil {
						t.Fatal("it was created")
					}
					wantAll(t, err.Error(), append([]string{"run " + kind}, c.want...))
					if len(err.Error()) > 10<<10 {
						t.Errorf("the error has %d bytes", len(err.Error()))
					}
					if got := fmt.Sprint(l.names(t)); got != "[poststop stopped]" {
						t.Errorf("%s were run", got)
					}
				})
			}
		}
		t.Run("poststart", func(t *testing.T) {
			node.NoLeaks(t)
			k := asWasm.create(t, node, "sleep", withHooks(specs.Hooks{Poststart: []specs.Hook{failing("echo nobody told >&2; exit 5", nil)}}))
			err := k.Start(k.ctx)
			if err == nil {
				t.Fatal("it was started")
			}
			wantAll(t, err.Error(), []string{"run poststart hook /bin/sh", "exit status 5", "nobody told"})
			k.expectCode(137)
		})
		t.Run("poststop", func(t *testing.T) {
			node.NoLeaks(t)
			l := newHookLog(t)
			k := asWasm.run(t, node, "sleep", "sleeping", withHooks(specs.Hooks{Poststop: []specs.Hook{failing("exit 6", nil), l.hook("poststop")}}))
			k.stop()
			if got := fmt.Sprint(l.names(t)); got != "[poststop stopped]" {
				t.Errorf("%s were run", got)
			}
		})
		t.Run("left behind", func(t *testing.T) {
			node.NoLeaks(t)
			k := asWasm.run(t, node, "sleep", "sleeping", withHooks(specs.Hooks{CreateRuntime: []specs.Hook{failing("sleep 3 & exit 0", nil)}}))
			k.stop()
		})
	})
}

// After the shim was killed, the delete verb runs the poststop hooks.
func TestPoststopAfterKilledShim(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		l := newHookLog(t)
		k := asWasm.run(t, node, "sleep", "sleeping", withHooks(specs.Hooks{Poststop: []specs.Hook{l.hook("poststop")}}))
		if err := syscall.Kill(int(k.connect().ShimPid), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		k.awaitRemoval()
		if got := fmt.Sprint(l.names(t)); got != "[poststop stopped]" {
			t.Errorf("%s were run", got)
		}
	})
}
