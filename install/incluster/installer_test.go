package incluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/install"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/testoutput"
)

// The life of an installation: installed with one restart, left alone by pods that end
// and come again, removed with the DaemonSet so that every byte is as it was.
func TestInstallAndRemove(t *testing.T) {
	for _, version := range testnode.Versions() {
		t.Run("containerd-"+version, func(t *testing.T) {
			f := newFixture(t, version, "")
			before := f.files()

			p := f.start()
			p.waitReady()
			f.expectRestarts(1)
			if err := f.offered(); err != nil {
				t.Error(err)
			}
			if got := f.api.label(); got != "true" {
				t.Errorf("the label is %v", got)
			}
			installed := f.files()

			// An upgrade of the DaemonSet, or the node's shutdown.
			if err := p.stop(); err != nil {
				t.Error(err)
			}
			f.expectFiles(installed)
			p = f.start()
			p.waitReady()
			f.expectFiles(installed)
			f.expectRestarts(1)

			if err := os.MkdirAll(filepath.Join(f.options.State, "cache"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(f.options.State, "cache", "module"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			f.api.change(func(a *apiServer) { a.gone = true })
			if err := p.stop(); err != nil {
				t.Error(err)
			}
			f.expectFiles(before)
			f.expectRestarts(2)
			if err := f.offered(); err == nil {
				t.Error("containerd still offers the runtime")
			}
			if got := f.api.label(); got != nil {
				t.Errorf("the label is %v", got)
			}
			if _, err := os.Stat(f.options.State); err != nil {
				t.Errorf("the folder itself, a mount in the pod: %v", err)
			}
		})
	}
}

// A newer binary replaces the older one without a restart; what runs keeps its own.
func TestUpgrade(t *testing.T) {
	f := newFixture(t, testnode.DefaultVersion, "")
	p := f.start()
	p.waitReady()
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(f.options.Install.BinDir, install.BinaryName)
	running, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	old, err := running.Stat()
	if err != nil {
		t.Fatal(err)
	}

	f.options.Install.Binary = newerShim(t)
	p = f.start()
	p.waitReady()
	f.expectRestarts(1)
	now, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if now.Size() == old.Size() || os.SameFile(old, now) {
		t.Errorf("the binary was not replaced: %d bytes", now.Size())
	}
	if again, err := running.Stat(); err != nil || again.Size() != old.Size() {
		t.Errorf("the old binary was written to: %v", err)
	}
}

// newerShim returns another binary that runs.
func newerShim(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(shim(t))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "newer")
	if err := os.WriteFile(path, append(content, "newer"...), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// A containerd that was upgraded to a release with other needs offers the runtime all along, and is
// restarted all the same: how it pulls images is nothing that it tells.
func TestContainerdWasUpgraded(t *testing.T) {
	f := newFixture(t, "2.4", "")
	older := f.options.Install
	older.ContainerdVersion = "2.2.9"
	if _, err := install.Install(t.Context(), older); err != nil {
		t.Fatal(err)
	}
	if err := f.restartNode(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.offered(); err != nil {
		t.Fatal(err)
	}
	p := f.start()
	p.waitReady()
	if got := f.systemd.Restarts(); got != 1 {
		t.Errorf("%d restarts", got)
	}
	if text, err := os.ReadFile(f.config()); err != nil || !strings.Contains(string(text), "use_local_image_pull = true") {
		t.Errorf("%v, containerd's configuration is\n%s", err, text)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
}

// A containerd that does not come up with the entry comes up again without it, and is
// not tormented further.
func TestRollBack(t *testing.T) {
	for name, broken := range map[string]func(*fixture) func(context.Context) error{
		"stays down": func(f *fixture) func(context.Context) error {
			return func(context.Context) error { return errors.Join(f.node.Terminate(), errors.New("start failed")) }
		},
		"serves without the runtime": func(f *fixture) func(context.Context) error {
			// So long it waits in vain, and so long the restart that undoes all may take.
			f.options.Timeout = 10 * time.Second
			return func(context.Context) error { return nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, testnode.DefaultVersion, "")
			before := f.files()
			failing := broken(f)
			f.onRestart(func(ctx context.Context) error {
				f.onRestart(func(ctx context.Context) error {
					// Down already, or not.
					_ = f.node.Terminate()
					return f.node.Restart(ctx)
				})
				return failing(ctx)
			})
			p := f.start()
			p.waitLog("does not try again")
			f.expectFiles(before)
			f.expectRestarts(2)
			if err := f.offered(); err == nil || !strings.Contains(err.Error(), "no runtime") {
				t.Errorf("containerd: %v", err)
			}
			if f.api.label() != nil || p.installer.readiness.ready() {
				t.Error("the node counts as installed")
			}
			p.waitLog("installing failed and was undone")
			if err := p.stop(); err != nil {
				t.Error(err)
			}
			f.expectRestarts(2)
		})
	}
}

// The binary of the version before comes back too.
func TestRollBackOfAnUpgrade(t *testing.T) {
	f := newFixture(t, testnode.DefaultVersion, "")
	original, err := os.ReadFile(f.config())
	if err != nil {
		t.Fatal(err)
	}
	p := f.start()
	p.waitReady()
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	// Somebody has put back their own configuration, so that this upgrade has to restart.
	if err := os.WriteFile(f.config(), original, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.restartNode(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(f.options.Install.BinDir, install.BinaryName)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.onRestart(func(context.Context) error {
		f.onRestart(f.node.Restart)
		return errors.Join(f.node.Terminate(), errors.New("start failed"))
	})
	f.options.Install.Binary = newerShim(t)
	p = f.start()
	p.waitLog("does not try again")
	if !strings.Contains(p.log.String(), "installed "+path) {
		t.Errorf("the newer binary was never there: %s", p.log)
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Errorf("the binary is %d bytes, not %d: %v", len(after), len(before), err)
	}
}

// An edit of the operator's that waited for a restart takes effect with ours. That is told,
// and undone as far as it is ours; the next pod finds nothing in the way.
func TestEditThatWaitedForARestart(t *testing.T) {
	f := newFixture(t, testnode.DefaultVersion, "")
	extra := filepath.Join(f.node.Dir, "extra.toml")
	if err := os.WriteFile(extra, []byte("version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nmax_container_log_line_size = 4711\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := f.files()
	p := f.start()
	p.waitLog("containerd reads maxContainerLogLineSize differently; if that was a change that only waited for a restart, delete this pod")
	p.waitLog("does not try again")
	f.expectFiles(before)
	f.expectRestarts(2)
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	f.start().waitReady()
	f.expectRestarts(3)
}

// Nothing is touched when it is clear beforehand that it would not work.
func TestRefusedBeforeAnythingIsChanged(t *testing.T) {
	f := newFixture(t, testnode.DefaultVersion, "")
	before := f.files()
	good := f.options
	for name, tc := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no systemd":   {func(o *Options) { o.Restart.socket += "-gone" }, "on a node without systemd give"},
		"other unit":   {func(o *Options) { o.Restart.unit = "k3s.service" }, "no unit k3s.service"},
		"no CRI":       {func(o *Options) { o.Socket += "-gone" }, "containerd at"},
		"broken shim":  {func(o *Options) { o.Install.Binary = "/bin/false" }, "does not run on this node"},
		"shim is gone": {func(o *Options) { o.Install.Binary = "/no/such/file" }, "does not run on this node"},
	} {
		t.Run(name, func(t *testing.T) {
			f.options = good
			tc.change(&f.options)
			p := f.start()
			p.waitLog(tc.want)
			if p.installer.readiness.ready() {
				t.Error("the pod is ready")
			}
			f.api.change(func(a *apiServer) { a.gone = false })
			if err := p.stop(); err != nil {
				t.Error(err)
			}
			f.expectFiles(before)
			f.expectRestarts(0)
			if got := strings.Count(p.log.String(), "not ready"); got != 1 {
				t.Errorf("the same problem was logged %d times", got)
			}
		})
	}
}

// A file that must not be edited: the log says what to add, and when the operator has done
// so the rest follows.
func TestConfigurationThatIsTheOperators(t *testing.T) {
	f := newFixture(t, testnode.DefaultVersion, "")
	text, err := os.ReadFile(f.config())
	if err != nil {
		t.Fatal(err)
	}
	generated := "# File generated by example. DO NOT EDIT.\n" + string(text)
	if err := os.WriteFile(f.config(), []byte(generated), 0o644); err != nil {
		t.Fatal(err)
	}
	before := f.files()
	p := f.start()
	p.waitLog("another program generates it")
	p.waitLog("add to " + f.config() + ", then restart containerd:\n[plugins.")
	f.expectFiles(before)
	_, entry, _ := strings.Cut(p.log.String(), "then restart containerd:\n")
	entry, _, _ = strings.Cut(entry, "\nnot ready")
	if err := os.WriteFile(f.config(), []byte(generated+"\n"+entry), 0o644); err != nil {
		t.Fatal(err)
	}
	p.waitReady()
	f.expectRestarts(1)
	if err := f.offered(); err != nil {
		t.Error(err)
	}
}

// Without a way to restart containerd, the pod waits for somebody who has one.
func TestOperatorRestarts(t *testing.T) {
	f := newFixture(t, testnode.DefaultVersion, "")
	before := f.files()
	f.options.Restart = Restart{}
	p := f.start()
	p.waitLog("restart containerd on this node")
	if f.api.label() != nil {
		t.Error("labelled before containerd offers the runtime")
	}
	if err := f.restartNode(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.waitReady()
	f.api.change(func(a *apiServer) { a.gone = true })
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(p.log.String(), "containerd still offers the runtime: restart containerd") {
		t.Errorf("the log is %s", p.log)
	}
	f.expectFiles(before)
}

// While it watches, the label follows what containerd offers; the files are left alone.
func TestWatch(t *testing.T) {
	f := newFixture(t, testnode.DefaultVersion, "")
	before, err := os.ReadFile(f.config())
	if err != nil {
		t.Fatal(err)
	}
	p := f.start()
	p.waitReady()
	f.api.change(func(a *apiServer) { delete(a.labels, Label) })
	waitFor(t, "the label to come back", func() bool { return f.api.label() == "true" })

	if err := f.node.Terminate(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the pod to notice that containerd is down", func() bool { return !p.installer.readiness.ready() })
	if f.api.label() != "true" {
		t.Error("a containerd that restarts cost the node its label")
	}
	if err := os.WriteFile(f.config(), before, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.node.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the label to go", func() bool { return f.api.label() == nil })
	p.waitLog("any more, so this node has lost its label")
	f.expectRestarts(1)
	if now, err := os.ReadFile(f.config()); err != nil || string(now) != string(before) {
		t.Errorf("the operator's file was changed: %v", err)
	}
}

// crashPoints are where an installer is killed: at the request that reaches systemd or the
// API server, before or after it took effect.
func TestKilledAnywhere(t *testing.T) {
	type points struct {
		restart func(f *fixture, kill func()) // hooks the restart
		before  bool                          // at the PATCH, before it
		after   bool                          // at the PATCH, after it
	}
	for name, at := range map[string]points{
		"files written, containerd not restarted": {restart: func(f *fixture, kill func()) {
			f.onRestart(func(context.Context) error { kill(); return nil })
		}},
		"containerd down": {restart: func(f *fixture, kill func()) {
			f.onRestart(func(ctx context.Context) error {
				err := f.node.Terminate()
				kill()
				return errors.Join(err, f.node.Restart(ctx)) // systemd goes on without the one who asked
			})
		}},
		"containerd restarted, node not labelled": {before: true},
		"node labelled": {after: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, testnode.DefaultVersion, "")
			before := f.files()
			victim := f.process()
			if at.restart != nil {
				at.restart(f, victim.kill)
			}
			patch := func(r *http.Request) {
				if r.Method == http.MethodPatch {
					victim.kill()
				}
			}
			f.api.change(func(a *apiServer) {
				if at.before {
					a.before = patch
				}
				if at.after {
					a.after = patch
				}
			})
			victim.start()
			victim.wait()
			f.onRestart(f.restartNode)
			f.api.change(func(a *apiServer) { a.before, a.after = nil, nil })
			if at.restart != nil {
				waitFor(t, "containerd", func() bool {
					_, _, err := cri{f.options.Socket}.version(context.Background())
					return err == nil
				})
			}

			p := f.start()
			p.waitReady()
			if err := f.offered(); err != nil {
				t.Error(err)
			}
			if got := f.systemd.Restarts(); got > 2 {
				t.Errorf("%d restarts", got)
			}
			f.api.change(func(a *apiServer) { a.deleting = true })
			if err := p.stop(); err != nil {
				t.Error(err)
			}
			f.expectFiles(before)
			if f.api.label() != nil {
				t.Error("the label stayed")
			}
		})
	}
}

// What a killed installer leaves between its files is finished by the next one.
func TestKilledBetweenFiles(t *testing.T) {
	for name, leave := range map[string]func(*fixture, string) error{
		"part of the binary": func(f *fixture, bin string) error {
			return os.WriteFile(filepath.Join(bin, install.BinaryName), []byte("\x7fELF"), 0o755)
		},
		"binary only": func(f *fixture, bin string) error {
			return exec.Command("cp", f.options.Install.Binary, filepath.Join(bin, install.BinaryName)).Run()
		},
		"binary and node configuration": func(f *fixture, bin string) error {
			_, err := install.Install(context.Background(), install.Options{Config: filepath.Join(f.dir, "other.toml"), BinDir: bin,
				NodeConfig: f.options.Install.NodeConfig, Binary: f.options.Install.Binary, ContainerdVersion: "2.2.9"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, testnode.DefaultVersion, "")
			before := f.files()
			if err := os.MkdirAll(f.options.Install.BinDir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := leave(f, f.options.Install.BinDir); err != nil {
				t.Fatal(err)
			}
			p := f.start()
			p.waitReady()
			f.expectRestarts(1)
			f.api.change(func(a *apiServer) { a.gone = true })
			if err := p.stop(); err != nil {
				t.Error(err)
			}
			f.expectFiles(before)
		})
	}
}

// process is an installer in a process of its own, to be killed.
type process struct {
	t       *testing.T
	command *exec.Cmd
	output  testoutput.Buffer
	started chan struct{}
}

const roleVariable = "INCLUSTER_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "installer" {
		os.Exit(Command(context.Background(), os.Args[1:], os.Stderr))
	}
	os.Exit(m.Run())
}

// process prepares "wasm-node-installer" with the fixture's options as flags.
func (f *fixture) process() *process {
	f.t.Helper()
	o := f.options
	p := &process{t: f.t, started: make(chan struct{}), command: exec.Command(os.Args[0],
		"--node", o.Node, "--daemonset", o.DaemonSet, "--socket", o.Socket, "--config", o.Install.Config, "--bin-dir", o.Install.BinDir,
		"--node-config", o.Install.NodeConfig, "--shim", o.Install.Binary, "--state", o.State, "--restart", "systemd:"+o.Restart.unit,
		"--systemd-socket", o.Restart.socket, "--interval", fmt.Sprint(o.Interval), "--listen", "", "--credentials", o.Credentials,
		"--server", o.Server)}
	p.command.Env = append(os.Environ(), roleVariable+"=installer")
	p.command.Stdout, p.command.Stderr = &p.output, &p.output
	return p
}

func (p *process) start() {
	p.t.Helper()
	if err := p.command.Start(); err != nil {
		p.t.Fatal(err)
	}
	close(p.started)
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Logf("the killed installer said:\n%s", p.output.String())
		}
	})
}

func (p *process) kill() {
	<-p.started
	p.command.Process.Kill()
}

// wait returns when the process is gone, which must be because it was killed.
func (p *process) wait() {
	p.t.Helper()
	timer := time.AfterFunc(patience, p.kill)
	defer timer.Stop()
	if err := p.command.Wait(); err == nil || p.command.ProcessState.ExitCode() != -1 {
		p.t.Fatalf("the installer was not killed: %v", err)
	}
}
