package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
)

// releases are the pinned containerd releases that every test with a real one runs
// against, as hack/tools names them.
var releases = []string{"containerd-1.7", "containerd-2.1", "containerd-2.2", "containerd-2.4"}

// tools returns the folder with a release's binaries, built once if need be.
func tools(t *testing.T, release string) string {
	t.Helper()
	cmd := exec.Command("../hack/tools/build.sh", release)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("building %s: %v", release, err)
	}
	return strings.TrimSpace(string(out))
}

// realNode is a node with a real containerd binary.
func realNode(t *testing.T, release string, files map[string]string) nodeFixture {
	t.Helper()
	bin := tools(t, release)
	f := newNode(t, "", files)
	f.options.ContainerdVersion = ""
	f.options.Containerd = filepath.Join(bin, "containerd")
	return f
}

// dump returns what containerd reads, without the list of files.
func (f nodeFixture) dump() map[string]any {
	f.t.Helper()
	tree, err := containerd{path: f.options.Containerd}.dump(context.Background(), f.options.Config)
	if err != nil {
		f.t.Fatal(err)
	}
	delete(tree, "imports")
	return tree
}

// With our entry, containerd reads everything that it read before, and the entry:
// for each release, each version of the file that it knows, and each way in which
// the file may hold or import its CRI section. The same holds after uninstall.
func TestContainerdReadsTheEntry(t *testing.T) {
	kubeadm, v3 := testdata(t, "kubeadm.toml"), testdata(t, "v3.toml")
	imports := "imports = ['conf.d/*.toml']\n"
	const section2 = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'example.org/pause'\nrestrict_oom_score_adj = true\n"
	cases := map[string]struct {
		releases string
		files    map[string]string
	}{
		"no file":                  {"1.7 2.1 2.2 2.4", nil},
		"empty":                    {"1.7 2.1 2.2 2.4", map[string]string{"config.toml": ""}},
		"docker":                   {"1.7 2.1 2.2 2.4", map[string]string{"config.toml": testdata(t, "docker.toml")}},
		"version 1":                {"1.7", map[string]string{"config.toml": "[plugins.cri]\nsandbox_image = 'example.org/pause'\n"}},
		"kubeadm":                  {"1.7 2.1 2.2 2.4", map[string]string{"config.toml": kubeadm}},
		"kubeadm with imports":     {"1.7 2.1 2.2 2.4", map[string]string{"config.toml": imports + kubeadm}},
		"kubeadm with CRLF":        {"1.7 2.1 2.2 2.4", map[string]string{"config.toml": strings.ReplaceAll(kubeadm, "\n", "\r\n")}},
		"section without runtimes": {"1.7 2.1 2.2 2.4", map[string]string{"config.toml": section2}},
		"section imported": {"1.7 2.1 2.2 2.4", map[string]string{
			"config.toml": imports + kubeadm, "conf.d/cri.toml": section2}},
		"dotted keys": {"1.7 2.1 2.2 2.4", map[string]string{
			"config.toml": "version = 2\n[plugins]\n'io.containerd.grpc.v1.cri'.sandbox_image = 'example.org/pause'\n"}},
		"version 3":              {"2.1 2.2 2.4", map[string]string{"config.toml": strings.Replace(v3, "imports", "#imports", 1)}},
		"version 3 with imports": {"2.1 2.2 2.4", map[string]string{"config.toml": v3}},
		"version 3 and others": {"2.1 2.2 2.4", map[string]string{"config.toml": v3,
			"conf.d/zz.toml": "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.other]\nruntime_type = 'io.containerd.runc.v2'\n"}},
		"version 4":    {"2.4", map[string]string{"config.toml": strings.Replace(v3, "version = 3", "version = 4", 1)}},
		"1.7 default":  {"1.7 2.1 2.2 2.4", map[string]string{"config.toml": testdata(t, "containerd-1.7-default.toml")}},
		"2.2 default":  {"2.2 2.4", map[string]string{"config.toml": testdata(t, "containerd-2.2-default.toml")}},
		"2.4 default":  {"2.4", map[string]string{"config.toml": testdata(t, "containerd-2.4-default.toml")}},
		"k3s, imports": {"2.1 2.2 2.4", map[string]string{"config.toml": "imports = ['conf.d/*.toml']\n" + testdata(t, "k3s.toml")}},
	}
	for _, release := range releases {
		for name, tc := range cases {
			number := strings.TrimPrefix(release, "containerd-")
			if !strings.Contains(tc.releases, number) {
				continue
			}
			t.Run(number+"/"+name, func(t *testing.T) {
				f := realNode(t, release, tc.files)
				files, before := f.files(), f.dump()
				r := f.install()
				if got := strings.Contains(strings.Join(r.Lines, "\n"), "CRI plugin is disabled"); got != (name == "docker") {
					t.Errorf("%q", r.Lines)
				}

				after := f.dump()
				plugin := pluginV3
				if number == "1.7" {
					plugin = pluginV2
				}
				// A disabled plugin is not in 1.7's dump at all.
				if runtimes := table(after, "plugins", plugin, "containerd", "runtimes"); runtimes != nil || name != "docker" {
					if err := complete(runtimes[Handler], f.options.NodeConfig); err != nil {
						t.Errorf("containerd reads %v: %v", runtimes[Handler], err)
					}
					delete(runtimes, Handler)
				}
				// 2.4 is the only one that needs a setting to unpack wasi/wasm; see test/pull_test.go.
				if number == "2.4" {
					if setting := pullSetting(after); setting == nil || !*setting {
						t.Errorf("containerd reads %s as %v", localPullKey, setting)
					}
					table(after, "plugins", imagesPlugin)[localPullKey] = false
				}
				if !reflect.DeepEqual(before, after) {
					t.Errorf("containerd reads %s differently", difference(before, after))
				}

				f.uninstall()
				if got := f.dump(); !reflect.DeepEqual(before, got) {
					t.Errorf("after uninstall containerd reads %s differently", difference(before, got))
				}
				if got := f.files(); !maps.Equal(got, files) {
					t.Errorf("after uninstall %q differ", changed(files, got))
				}
			})
		}
	}
}

// What containerd does not read as it should is undone.
func TestRejectedChangeIsUndone(t *testing.T) {
	const usual = "oom_score = 0\n[plugins.'io.containerd.cri.v1.runtime']\nx = 1\n"
	for name, tc := range map[string]struct{ answer, want string }{
		"error":          {"echo 'containerd: no such table' >&2; exit 1", "no such table"},
		"other settings": {"echo \"" + strings.Replace(usual, "= 0", "= 1", 1) + "\"", "would read oom_score differently"},
		"entry unseen":   {"echo \"" + usual + "\"", "reads no runtime"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newNode(t, "", map[string]string{"config.toml": "version = 3\n"})
			before := f.files()
			f.options.ContainerdVersion = ""
			f.options.Containerd = filepath.Join(t.TempDir(), "containerd")
			script := "#!/bin/sh\n" +
				"[ \"$1\" = --version ] && { echo containerd example v2.2.9; exit; }\n" +
				"/bin/grep -q BEGIN \"$2\" && { " + tc.answer + "; exit; }\n" +
				"echo \"" + usual + "\"\n"
			if err := os.WriteFile(f.options.Containerd, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := Install(context.Background(), f.options)
			if manual := (*ManualError)(nil); !errors.As(err, &manual) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want something with %q", err, tc.want)
			}
			if got := f.files()["etc/containerd/config.toml"]; got != before["etc/containerd/config.toml"] {
				t.Errorf("the file is %q", got)
			}
		})
	}
}

func TestRunningShimKeepsTheBinary(t *testing.T) {
	f := newNode(t, "2.2.9", map[string]string{"config.toml": "version = 3\n"})
	f.options.Binary = "/bin/sleep"
	f.install()
	// The kernel shows the real path, whatever the operator calls the folder.
	link := filepath.Join(t.TempDir(), "bin")
	if err := os.Symlink(f.options.BinDir, link); err != nil {
		t.Fatal(err)
	}
	f.options.BinDir = link
	cmd := exec.Command(f.options.binaryPath(), "infinity")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	before := f.files()
	if _, err := Uninstall(context.Background(), f.options); err == nil || !strings.Contains(err.Error(), "still runs containers") {
		t.Fatalf("uninstall: %v", err)
	}
	if after := f.files(); !maps.Equal(before, after) {
		t.Errorf("changed %q", changed(before, after))
	}
}

// The CRI plugin of each release starts with the entry, offers the handler and keeps
// the one it had. The runc shim stands in for ours: containerd asks every runtime's
// binary for its features.
func TestCRIOffersTheHandler(t *testing.T) {
	for _, release := range releases {
		for name, file := range map[string]string{
			"no file before": "",
			"kubeadm":        "imports = ['conf.d/*.toml']\n" + testdata(t, "kubeadm.toml"),
		} {
			t.Run(release+"/"+name, func(t *testing.T) {
				files := map[string]string{}
				if file != "" {
					files["config.toml"] = strings.Replace(file, `snapshotter = "overlayfs"`, `snapshotter = "native"`, 1)
				}
				f := realNode(t, release, files)
				f.options.Binary = filepath.Join(filepath.Dir(f.options.Containerd), "containerd-shim-runc-v2")
				f.install()
				config := f.criStatus(f.startContainerd())
				runtimes := table(config, "containerd", "runtimes")
				if runtimes["runc"] == nil {
					t.Errorf("runc is gone: %v", runtimes)
				}
				entry, _ := runtimes[Handler].(map[string]any)
				if entry["runtimeType"] != RuntimeType {
					t.Fatalf("the handler is %v", entry)
				}
				if got := table(entry, "options")["ConfigPath"]; got != f.options.NodeConfig {
					t.Errorf("ConfigPath is %v", got)
				}
				if got := entry["podAnnotations"]; !reflect.DeepEqual(got, []any{"wasm.shim/*", "module.wasm.image/*", "run.oci.handler"}) &&
					!reflect.DeepEqual(entry["PodAnnotations"], []any{"wasm.shim/*", "module.wasm.image/*", "run.oci.handler"}) {
					t.Errorf("the annotations are %v in %v", got, entry)
				}
			})
		}
	}
}

// startContainerd starts containerd on the node's configuration and returns its
// socket. Everything that it writes lies below the node's folder.
func (f nodeFixture) startContainerd() string {
	f.t.Helper()
	// A socket's path has little room, less than a test's folder may take.
	short, err := os.MkdirTemp("", "ctd")
	if err != nil {
		f.t.Fatal(err)
	}
	socket := filepath.Join(short, "s")
	var log bytes.Buffer
	cmd := exec.Command(f.options.Containerd, "--config", f.options.Config, "--address", socket,
		"--root", filepath.Join(short, "root"), "--state", filepath.Join(short, "state"))
	cmd.Env = append(os.Environ(), "PATH="+f.options.BinDir+":"+filepath.Dir(f.options.Containerd)+":/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if f.t.Failed() {
			f.t.Log(log.String())
		}
		os.RemoveAll(short)
	})
	return socket
}

// criStatus waits until CRI answers and returns its configuration.
func (f nodeFixture) criStatus(socket string) map[string]any {
	f.t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		f.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var status *runtimeapi.StatusResponse
	var refusal error // containerd serves before CRI is initialized, and refuses then
	err = poll.Until(ctx, func() (bool, error) {
		status, refusal = runtimeapi.NewRuntimeServiceClient(conn).Status(ctx, &runtimeapi.StatusRequest{Verbose: true}, grpc.WaitForReady(true))
		return refusal == nil, nil
	})
	if err != nil {
		f.t.Fatalf("CRI status: %v: %v", err, refusal)
	}
	config := map[string]any{}
	if err := json.Unmarshal([]byte(status.Info["config"]), &config); err != nil {
		f.t.Fatalf("CRI configuration: %v", err)
	}
	if err := CheckRunning([]byte(status.Info["config"]), f.options.NodeConfig); err != nil {
		f.t.Error(err)
	}
	for _, handler := range status.RuntimeHandlers {
		if handler.Name == Handler {
			return config
		}
	}
	if len(status.RuntimeHandlers) > 0 {
		f.t.Errorf("CRI offers %v", status.RuntimeHandlers)
	}
	return config
}
