package install

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/config"
)

// nodeFixture is a node's files below a temporary folder, with containerd's
// configuration in etc/containerd.
type nodeFixture struct {
	t       *testing.T
	root    string
	options Options
}

// newNode makes a node that runs the given version of containerd, of which no
// binary is there. Files are relative to containerd's configuration folder.
func newNode(t *testing.T, version string, files map[string]string) nodeFixture {
	t.Helper()
	t.Setenv("PATH", t.TempDir())
	root := t.TempDir()
	f := nodeFixture{t: t, root: root, options: Options{
		Config:            filepath.Join(root, "etc/containerd/config.toml"),
		BinDir:            filepath.Join(root, "bin"),
		ContainerdVersion: version,
		NodeConfig:        filepath.Join(root, "etc/containerd-shim-wasm/config.toml"),
		Binary:            filepath.Join(root, "new-shim"),
		Verifiers:         filepath.Join(root, "verifiers"),
	}}
	f.write("../../new-shim", "the shim")
	for name, text := range files {
		f.write(name, text)
	}
	return f
}

func (f nodeFixture) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(filepath.Dir(f.options.Config), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		f.t.Fatal(err)
	}
}

// files returns every file below the node's root, with its content and mode.
func (f nodeFixture) files() map[string]string {
	f.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(f.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		all[strings.TrimPrefix(path, f.root+"/")] = info.Mode().String() + " " + string(text)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return all
}

func (f nodeFixture) install() Report {
	f.t.Helper()
	r, err := Install(context.Background(), f.options)
	if err != nil {
		f.t.Fatalf("install: %v\n%s", err, strings.Join(r.Lines, "\n"))
	}
	return r
}

func (f nodeFixture) uninstall() Report {
	f.t.Helper()
	r, err := Uninstall(context.Background(), f.options)
	if err != nil {
		f.t.Fatalf("uninstall: %v\n%s", err, strings.Join(r.Lines, "\n"))
	}
	return r
}

func testdata(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	// The import of the machine that runs the test is none of its business.
	return strings.ReplaceAll(string(text), "/etc/containerd/conf.d/", "conf.d/")
}

func changed(before, after map[string]string) []string {
	var names []string
	for name, text := range after {
		if before[name] != text {
			names = append(names, name)
		}
	}
	return names
}

// Every configuration that nodes have in the field: the entry arrives in the right
// file under the right name, the operator's text stays, a second install writes
// nothing, uninstall restores every byte.
func TestInstallAndUninstall(t *testing.T) {
	const main, dropIn = "etc/containerd/config.toml", "etc/containerd/conf.d/" + dropInName
	for name, tc := range map[string]struct {
		containerd string
		files      map[string]string
		in         string // the file that holds the entry
		plugin     string
		runc       bool // built-in runc repeated
		systemd    bool
	}{
		"1.7 default":           {"1.7.35", map[string]string{"config.toml": testdata(t, "containerd-1.7-default.toml")}, main, pluginV2, false, false},
		"2.2 default":           {"2.2.9", map[string]string{"config.toml": testdata(t, "containerd-2.2-default.toml")}, dropIn, pluginV3, false, false},
		"2.4 default":           {"2.4.2", map[string]string{"config.toml": testdata(t, "containerd-2.4-default.toml")}, dropIn, pluginV3, false, false},
		"kubeadm on 1.7":        {"1.7.35", map[string]string{"config.toml": testdata(t, "kubeadm.toml")}, main, pluginV2, false, true},
		"kubeadm on 2.2":        {"2.2.9", map[string]string{"config.toml": testdata(t, "kubeadm.toml")}, main, pluginV2, false, true},
		"kubeadm, version open": {"", map[string]string{"config.toml": testdata(t, "kubeadm.toml")}, main, pluginV2, false, true},
		"docker on 1.7":         {"1.7.35", map[string]string{"config.toml": testdata(t, "docker.toml")}, main, pluginV1, true, false},
		"docker on 2.2":         {"2.2.9", map[string]string{"config.toml": testdata(t, "docker.toml")}, main, pluginV3, false, false},
		"empty on 1.7":          {"1.7.35", map[string]string{"config.toml": ""}, main, pluginV1, true, false},
		"empty on 2.4":          {"2.4.2", map[string]string{"config.toml": ""}, main, pluginV3, false, false},
		"no file on 1.7":        {"1.7.35", nil, main, pluginV2, true, false},
		"no file on 2.2":        {"2.2.9", nil, main, pluginV3, false, false},
		"imports on 2.2":        {"2.2.9", map[string]string{"config.toml": testdata(t, "v3.toml")}, dropIn, pluginV3, false, true},
		"imports of version 2 on 2.4": {"2.4.2", map[string]string{
			"config.toml": "version = 2\nimports = ['conf.d/*.toml']\n"}, dropIn, pluginV2, false, false},
		"imports on 1.7": {"1.7.35", map[string]string{
			"config.toml": "imports = ['conf.d/*.toml']\n" + testdata(t, "kubeadm.toml")}, main, pluginV2, false, true},
		"imported CRI section on 1.7": {"1.7.35", map[string]string{
			"config.toml":        "imports = ['conf.d/*.toml']\n" + testdata(t, "kubeadm.toml"),
			"conf.d/10-cri.toml": "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'pause'\n",
		}, "etc/containerd/conf.d/10-cri.toml", pluginV2, true, false},
		"import of one file on 2.2": {"2.2.9", map[string]string{
			"config.toml": "version = 3\nimports = ['other.toml']\n", "other.toml": "version = 3\n"}, main, pluginV3, false, false},
		"glob that our name does not match": {"2.2.9", map[string]string{
			"config.toml": "version = 3\nimports = ['conf.d/99-*.toml']\n"}, main, pluginV3, false, false},
		"glob for folders": {"2.2.9", map[string]string{
			"config.toml": "version = 3\nimports = ['*.d/*.toml']\n"}, main, pluginV3, false, false},
		"CRLF": {"1.7.35", map[string]string{
			"config.toml": strings.ReplaceAll(testdata(t, "kubeadm.toml"), "\n", "\r\n")}, main, pluginV2, false, true},
		"dotted keys": {"2.2.9", map[string]string{
			"config.toml": "version = 3\n[plugins]\n'io.containerd.cri.v1.runtime'.containerd.snapshotter = 'native'\n"},
			main, pluginV3, false, false},
		"no last line break": {"2.2.9", map[string]string{"config.toml": "version = 3\noom_score = 1"}, main, pluginV3, false, false},
		"generated, but importing": {"2.2.9", map[string]string{
			"config.toml": strings.Replace(testdata(t, "k3s.toml"), "version = 3", "version = 3\nimports = ['conf.d/*.toml']", 1)},
			dropIn, pluginV3, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newNode(t, tc.containerd, tc.files)
			before := f.files()

			r := f.install()
			if !r.Changed || r.Restart == "" {
				t.Errorf("the report says that nothing changed: %+v", r)
			}
			installed := f.files()
			text := installed[tc.in]
			if _, original, ok := strings.Cut(before[tc.in], " "); ok && !strings.HasPrefix(text[strings.IndexByte(text, ' ')+1:], original) {
				t.Errorf("%s does not begin with what the operator wrote:\n%s", tc.in, text)
			}
			_, text, _ = strings.Cut(text, " ")
			tree, err := parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if err := complete(runtimeEntry(tree), f.options.NodeConfig); err != nil {
				t.Errorf("%s: %v\n%s", tc.in, err, text)
			}
			if table(tree, "plugins", tc.plugin, "containerd", "runtimes")[Handler] == nil {
				t.Errorf("the entry is not in section %q:\n%s", tc.plugin, text)
			}
			if got := strings.Contains(text, "drops its built-in runc"); got != tc.runc {
				t.Errorf("built-in runc repeated: %t, want %t", got, tc.runc)
			}
			if n := len(changed(before, installed)); n != 3 {
				t.Errorf("install changed %q, want binary, node configuration and %s", changed(before, installed), tc.in)
			}
			c, err := config.Load(f.options.NodeConfig)
			if err != nil || c.SystemdCgroup != tc.systemd {
				t.Errorf("node configuration: %+v, %v; want systemd_cgroup = %t", c, err, tc.systemd)
			}

			if r := f.install(); r.Changed || r.Restart != "" {
				t.Errorf("second install: %+v", r)
			}
			if again := f.files(); !maps.Equal(again, installed) {
				t.Errorf("second install changed %q", changed(installed, again))
			}

			f.uninstall()
			if after := f.files(); !maps.Equal(after, before) {
				t.Errorf("after uninstall %q differ", changed(before, after))
			}
			if r := f.uninstall(); r.Changed {
				t.Errorf("second uninstall: %+v", r)
			}
		})
	}
}

// Where an edit is not safe, nothing is written at all and the error says what to
// do: neither file nor binary nor node configuration.
func TestInstallRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		containerd string
		files      map[string]string
		want       string
		manual     bool
	}{
		"template":  {"2.2.9", map[string]string{"config.toml": testdata(t, "k3s.toml.tmpl")}, "it is a template", true},
		"generated": {"2.2.9", map[string]string{"config.toml": testdata(t, "k3s.toml")}, "another program generates it", true},
		"not TOML":  {"1.7.35", map[string]string{"config.toml": "version = 2\nversion 3\n"}, "not TOML: line 2", true},
		"inline table": {"1.7.35", map[string]string{"config.toml": "version = 2\nplugins = {'io.containerd.grpc.v1.cri' = {}}\n"},
			"written inline", true},
		"inline runtimes": {"2.2.9", map[string]string{"config.toml": "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\nruntimes = {runc = {runtime_type = 'x'}}\n"},
			"written inline", true},
		"no containerd":    {"", nil, "cannot tell containerd's version", false},
		"version mismatch": {"1.7.35", map[string]string{"config.toml": "version = 3\n"}, "which containerd 1.7.35 cannot read", false},
		"old CRI section on 2.x": {"2.2.9", map[string]string{"config.toml": "[plugins.cri]\nsandbox_image = 'x'\n"},
			"containerd config migrate", true},
		"wrong version": {"two", nil, `"two" is no version`, false},
		"somebody's wasm": {"2.2.9", map[string]string{"config.toml": "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.wasm]\nruntime_type = 'io.containerd.wasmtime.v1'\n"},
			`has a runtime "wasm" already, and its runtime_type is "io.containerd.wasmtime.v1"`, false},
		"somebody's wasm in an import": {"2.2.9", map[string]string{
			"config.toml": "version = 3\nimports = ['conf.d/*']\n",
			"conf.d/x":    "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.wasm]\nruntime_type = 'io.containerd.wasm.v1'\n",
		}, "conf.d/x has a runtime", false},
		"half a block":   {"2.2.9", map[string]string{"config.toml": "version = 3\n# BEGIN containerd-shim-wasm 12\n"}, "lacks the line", true},
		"missing import": {"2.2.9", map[string]string{"config.toml": "version = 3\nimports = ['gone.toml']\n"}, "gone.toml", false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newNode(t, tc.containerd, tc.files)
			before := f.files()
			_, err := Install(context.Background(), f.options)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want something with %q", err, tc.want)
			}
			manual := (*ManualError)(nil)
			if errors.As(err, &manual) != tc.manual {
				t.Errorf("manual: %t, want %t: %v", !tc.manual, tc.manual, err)
			}
			if tc.manual && !strings.Contains(manual.Entry, `runtime_type = "io.containerd.wasm.v1"`) {
				t.Errorf("nothing to add by hand: %q", manual.Entry)
			}
			if after := f.files(); !maps.Equal(before, after) {
				t.Errorf("changed %q", changed(before, after))
			}
		})
	}
}

func TestEntryByHandIsLeftAlone(t *testing.T) {
	f := newNode(t, "2.2.9", nil)
	f.write("config.toml", "version = 3\n"+renderEntry(pluginV3, f.options.NodeConfig))
	before := f.files()
	if r := f.install(); r.Restart != "" {
		t.Errorf("the report asks for a restart: %+v", r)
	}
	if after := f.files(); after["etc/containerd/config.toml"] != before["etc/containerd/config.toml"] {
		t.Error("the file was changed")
	}
	if _, err := Uninstall(context.Background(), f.options); err == nil || !strings.Contains(err.Error(), "did not write") {
		t.Fatalf("uninstall: %v", err)
	}
	f.options.Force = true
	f.uninstall()
	if after := f.files(); !maps.Equal(after, before) {
		t.Errorf("after a forced uninstall %q differ", changed(before, after))
	}
}

// What an operator writes into or around the block is not lost.
func TestEditedBlock(t *testing.T) {
	edit := func(f nodeFixture, from, to string) {
		text, err := os.ReadFile(f.options.Config)
		if err != nil {
			f.t.Fatal(err)
		}
		if !bytes.Contains(text, []byte(from)) {
			f.t.Fatalf("no %q in\n%s", from, text)
		}
		f.write("config.toml", strings.Replace(string(text), from, to, 1))
	}
	fresh := func(t *testing.T) nodeFixture {
		f := newNode(t, "1.7.35", map[string]string{"config.toml": testdata(t, "kubeadm.toml")})
		f.install()
		return f
	}

	t.Run("inside, still working", func(t *testing.T) {
		f := fresh(t)
		edit(f, `["wasm.shim/*"`, `["team.example/*", "wasm.shim/*"`)
		before := f.files()
		if r := f.install(); r.Changed {
			t.Errorf("install: %+v", r)
		}
		if _, err := Uninstall(context.Background(), f.options); err == nil || !strings.Contains(err.Error(), "edited by hand") {
			t.Errorf("uninstall: %v", err)
		}
		if after := f.files(); !maps.Equal(after, before) {
			t.Errorf("changed %q", changed(before, after))
		}
		f.options.Force = true
		f.uninstall()
		if _, text, _ := strings.Cut(f.files()["etc/containerd/config.toml"], " "); text != testdata(t, "kubeadm.toml") {
			t.Errorf("after a forced uninstall:\n%s", text)
		}
	})
	t.Run("inside, broken", func(t *testing.T) {
		f := fresh(t)
		edit(f, `"wasm.shim/*", `, "")
		if _, err := Install(context.Background(), f.options); err == nil || !strings.Contains(err.Error(), `lack "wasm.shim/*"`) {
			t.Fatalf("install: %v", err)
		}
	})
	t.Run("keys after it", func(t *testing.T) {
		f := fresh(t)
		edit(f, endMark+"\n", endMark+"\nBinaryName = \"x\"\n")
		before := f.files()
		if _, err := Uninstall(context.Background(), f.options); err == nil || !strings.Contains(err.Error(), "change the meaning") {
			t.Fatalf("uninstall: %v", err)
		}
		if after := f.files(); !maps.Equal(after, before) {
			t.Errorf("changed %q", changed(before, after))
		}
	})
	t.Run("tables around it", func(t *testing.T) {
		f := fresh(t)
		edit(f, endMark+"\n", endMark+"\n[timeouts]\n\"x\" = \"1s\"\n")
		edit(f, "oom_score = -999", "oom_score = 0")
		f.uninstall()
		want := strings.Replace(testdata(t, "kubeadm.toml"), "oom_score = -999", "oom_score = 0", 1) + "[timeouts]\n\"x\" = \"1s\"\n"
		if _, text, _ := strings.Cut(f.files()["etc/containerd/config.toml"], " "); text != want {
			t.Errorf("after uninstall:\n%s", text)
		}
	})
	t.Run("default runtime", func(t *testing.T) {
		f := fresh(t)
		edit(f, `default_runtime_name = "runc"`, `default_runtime_name = "wasm"`)
		if _, err := Uninstall(context.Background(), f.options); err == nil || !strings.Contains(err.Error(), "default runtime") {
			t.Fatalf("uninstall: %v", err)
		}
	})
}

// An unedited block of another release is replaced.
func TestUpgrade(t *testing.T) {
	f := newNode(t, "2.2.9", nil)
	old := strings.Replace(renderEntry(pluginV3, f.options.NodeConfig), `, "run.oci.handler"`, "", 1)
	f.write("config.toml", string(appendBlock([]byte("version = 3\n"), old)))
	f.write("../../bin/"+BinaryName, "an older shim")
	if r := f.install(); !r.Changed || r.Restart == "" {
		t.Errorf("%+v", r)
	}
	files := f.files()
	if !strings.Contains(files["etc/containerd/config.toml"], "run.oci.handler") || files["bin/"+BinaryName] != "-rwxr-xr-x the shim" {
		t.Errorf("%q", files)
	}
	f.uninstall()
	if text, err := os.ReadFile(f.options.Config); err != nil || string(text) != "version = 3\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestNodeConfigOfTheOperatorStays(t *testing.T) {
	f := newNode(t, "2.2.9", map[string]string{"config.toml": testdata(t, "v3.toml"), "../containerd-shim-wasm/config.toml": "log_level = \"debug\"\n"})
	r := f.install()
	if !strings.Contains(strings.Join(r.Lines, "\n"), "systemd_cgroup = false, containerd's own runtime has SystemdCgroup = true") {
		t.Errorf("no word about the cgroup driver: %q", r.Lines)
	}
	f.uninstall()
	if got := f.files()["etc/containerd-shim-wasm/config.toml"]; got != "-rw-r----- log_level = \"debug\"\n" {
		t.Errorf("%q", got)
	}
}

// A path that needs escapes arrives as it is.
func TestQuote(t *testing.T) {
	for _, s := range []string{"/etc/x.toml", `/etc/"x"`, `C:\x`, "/tmp/\x01\u00fc'", "/tmp/a\nb"} {
		tree, err := parse([]byte("s = " + quote(s)))
		if err != nil || tree["s"] != s {
			t.Errorf("%q became %s: %v, %v", s, quote(s), tree["s"], err)
		}
	}
}

func TestSymbolicLinkStays(t *testing.T) {
	f := newNode(t, "2.2.9", map[string]string{"real.toml": "version = 3\n"})
	if err := os.Symlink("real.toml", f.options.Config); err != nil {
		t.Fatal(err)
	}
	f.install()
	if target, err := os.Readlink(f.options.Config); err != nil || target != "real.toml" {
		t.Fatalf("%q, %v", target, err)
	}
	f.uninstall()
	if text, err := os.ReadFile(f.options.Config); err != nil || string(text) != "version = 3\n" {
		t.Fatalf("%q, %v", text, err)
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	f := newNode(t, "2.2.9", map[string]string{"config.toml": testdata(t, "v3.toml")})
	f.options.DryRun = true
	before := f.files()
	if r := f.install(); len(r.Lines) != 3 || !strings.HasPrefix(r.Lines[2], `would add runtime "wasm" to `) {
		t.Errorf("%q", r.Lines)
	}
	if after := f.files(); !maps.Equal(after, before) {
		t.Errorf("changed %q", changed(before, after))
	}
	f.options.DryRun = false
	f.install()
	f.options.DryRun = true
	before = f.files()
	if r := f.uninstall(); len(r.Lines) != 3 || !strings.HasPrefix(r.Lines[0], "would remove ") {
		t.Errorf("%q", r.Lines)
	}
	if after := f.files(); !maps.Equal(after, before) {
		t.Errorf("changed %q", changed(before, after))
	}
}

func TestCommands(t *testing.T) {
	f := newNode(t, "2.2.9", map[string]string{"config.toml": testdata(t, "docker.toml"), "../k3s/config.toml": testdata(t, "k3s.toml")})
	flags := []string{"--config", f.options.Config, "--bin-dir", f.options.BinDir}
	for _, tc := range []struct {
		run    func(context.Context, []string, *bytes.Buffer, *bytes.Buffer) int
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{install, append(flags, "--print", "--containerd-version", "1.7.35"), 0, `[plugins."cri".containerd.runtimes.wasm]`, ""},
		{install, append(flags, "--print", "--containerd-version", "2.2.9"), 0, `[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.wasm]`, ""},
		{install, []string{"--config", filepath.Join(f.root, "etc/k3s/config.toml"), "--print", "--containerd-version", "2.2.9"}, 0, "runtime_type", ""},
		{install, append(flags, "--dry-run", "--containerd-version", "2.2.9"), 0, "would install " + f.options.BinDir, ""},
		{install, []string{"--config", filepath.Join(f.root, "etc/k3s/config.toml"), "--containerd-version", "2.2.9"}, 1, "runtime_type", "generates it"},
		{install, []string{"--nonsense"}, 2, "", "usage: containerd-shim-wasm-v1 install"},
		{install, []string{"--help"}, 0, "", "-bin-dir"},
		{uninstall, []string{"more"}, 2, "", `uninstall takes no argument "more"`},
		{uninstall, append(flags, "--dry-run"), 0, "nothing to remove", ""},
	} {
		var stdout, stderr bytes.Buffer
		code := tc.run(context.Background(), tc.args, &stdout, &stderr)
		if code != tc.code || !strings.Contains(stdout.String(), tc.stdout) || !strings.Contains(stderr.String(), tc.stderr) ||
			(tc.stderr == "") != (stderr.Len() == 0) {
			t.Errorf("%q: code %d\n%s\n%s", tc.args, code, stdout.String(), stderr.String())
		}
	}
}

func install(ctx context.Context, args []string, stdout, stderr *bytes.Buffer) int {
	return Command(ctx, args, stdout, stderr)
}

func uninstall(ctx context.Context, args []string, stdout, stderr *bytes.Buffer) int {
	return UninstallCommand(ctx, args, stdout, stderr)
}
