package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/install"
	"github.com/wasmshim/containerd-shim-wasm/module"
)

// fakeKernel lacks the named system calls.
type fakeKernel map[string]error

func (k fakeKernel) has(call systemCall) error { return k[call.name] }

const script = "#!/bin/sh\necho containerd-shim-wasm-v1:\necho '  Version:  v1.2.3'\n"

// good is what a node on cgroup v2 has, by the paths of its files.
func good() map[string]string {
	files := map[string]string{
		"proc/sys/kernel/osrelease":                  "6.1.0\n",
		"proc/sys/kernel/seccomp/actions_avail":      "kill_process kill_thread trap errno user_notif trace log allow\n",
		"proc/filesystems":                           "nodev\tsysfs\nnodev\toverlay\n\text4\n",
		"sys/fs/cgroup/cgroup.controllers":           "cpuset cpu io memory hugetlb pids\n",
		"dev/fuse":                                   "",
		"usr/local/bin/" + install.BinaryName:        script,
		"etc/containerd-shim-wasm/config.toml":       "",
		"var/lib/containerd-shim-wasm/wasm-client-0": "",
		"var/lib/containerd-shim-wasm/cache/a":       "compiled",
	}
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "uts"} {
		files["proc/self/ns/"+kind] = ""
	}
	return files
}

// criStatus is a CRI configuration with our runtime and runc.
func criStatus(systemd bool) []byte {
	return fmt.Appendf(nil, `{"containerd":{"defaultRuntimeName":"runc","runtimes":{
		"runc":{"runtimeType":"io.containerd.runc.v2","options":{"SystemdCgroup":%t}},
		"wasm":{"runtimeType":"io.containerd.wasm.v1","PodAnnotations":["wasm.shim/*","module.wasm.image/*","run.oci.handler"],
			"options":{"ConfigPath":"/etc/containerd-shim-wasm/config.toml"}}}}}`, systemd)
}

// fake is a node of those files, with a containerd that has them, and nothing wrong.
func fake(t *testing.T, files map[string]string) *node {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &node{
		options: Options{Root: root, Address: "/run/containerd/containerd.sock", NoTrial: true},
		kernel:  fakeKernel{},
		containerd: containerd{version: "2.2.9", cri: criStatus(false), pid: 1, path: "/usr/bin:/usr/local/bin",
			config: "/etc/containerd/config.toml", exe: "/usr/bin/containerd"},
	}
}

// row returns the result of one check.
func row(t *testing.T, results []Result, name string) Result {
	t.Helper()
	i := slices.IndexFunc(results, func(r Result) bool { return r.Check == name })
	if i < 0 {
		t.Fatalf("no row %q in %v", name, results)
	}
	return results[i]
}

func TestGoodNode(t *testing.T) {
	results := fake(t, good()).run(context.Background())
	for _, r := range results {
		if r.State != OK || r.Mend != "" || r.Found == "" {
			t.Errorf("%+v", r)
		}
	}
	if len(results) != len(checks)-1 || !Healthy(results) {
		t.Errorf("%d rows, healthy: %t", len(results), Healthy(results))
	}
}

// Each thing that can be broken shows in its own row, with what to do, and in no other row that it
// has nothing to do with.
func TestBrokenNodes(t *testing.T) {
	remove := func(name string) func(*testing.T, *node) {
		return func(t *testing.T, n *node) {
			if err := os.RemoveAll(n.path(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(name, text string) func(*testing.T, *node) {
		return func(t *testing.T, n *node) {
			if err := os.MkdirAll(filepath.Dir(n.path(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(n.path(name), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	change := func(change func(n *node)) func(*testing.T, *node) {
		return func(_ *testing.T, n *node) { change(n) }
	}
	chmod := func(name string, mode os.FileMode) func(*testing.T, *node) {
		return func(t *testing.T, n *node) {
			if err := os.Chmod(n.path(name), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	const shimConfig, binary = "etc/containerd-shim-wasm/config.toml", "usr/local/bin/" + install.BinaryName
	for name, tc := range map[string]struct {
		harm  func(*testing.T, *node)
		check string
		state State
		found string
		mend  string
		also  string // another row that cannot be answered then
	}{
		"old containerd": {change(func(n *node) { n.containerd.version = "1.6.36" }), "containerd", Wrong, "1.6.36", "upgrade", ""},
		"no CRI": {change(func(n *node) { n.containerd.criErr, n.containerd.cri = errors.New("unknown service"), nil }),
			"runtime", Warning, "no CRI", "disabled_plugins in /etc/containerd/config.toml", ""},
		"no binary":          {remove(binary), "binary", Wrong, "/usr/bin:/usr/local/bin", "install --bin-dir", ""},
		"binary for another": {write(binary, "\x7fELF"), "binary", Wrong, "does not run", "architecture", ""},
		"not executable":     {chmod(binary, 0o644), "binary", Wrong, "no containerd-shim-wasm-v1", "install", ""},
		"binary of anybody":  {chmod(binary, 0o757), "binary", Wrong, "others than root", "chmod go-w", ""},
		"PATH unknown":       {change(func(n *node) { n.containerd.path = "" }), "binary", Warning, "not known", "as root", ""},
		"no runtime": {change(func(n *node) { n.containerd.cri = []byte(`{"containerd":{"runtimes":{}}}`) }),
			"runtime", Wrong, `no runtime "wasm"`, "install, then systemctl restart containerd", ""},
		"pulls unknown": {change(func(n *node) { n.containerd.version, n.containerd.pid = "2.4.2", 0 }),
			"image pulls", Warning, "not known", "as root", ""},
		"config misspelt":  {write(shimConfig, "max_modul_size = '1Mi'\n"), "shim's config", Wrong, "max_modul_size", "correct /etc/containerd-shim-wasm/config.toml", "cache, cgroup driver"},
		"no cgroups":       {remove("sys/fs/cgroup"), "cgroups", Wrong, "no cgroups", "mount -t cgroup2", ""},
		"no memory limits": {write("sys/fs/cgroup/cgroup.controllers", "cpu pids"), "cgroups", Wrong, "without memory", "cgroup_enable", ""},
		"other driver": {change(func(n *node) { n.containerd.cri = criStatus(true) }),
			"cgroup driver", Warning, "the shim says cgroupfs, containerd's default runtime systemd", "systemd_cgroup = true in /etc", ""},
		"kubelet's driver": {write("var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\ncgroupDriver: systemd\n"),
			"cgroup driver", Warning, "the kubelet systemd", "agree", ""},
		"old kernel": {change(func(n *node) { n.kernel = fakeKernel{"openat2": unix.ENOSYS} }),
			"system calls", Wrong, "Linux 6.1.0 lacks openat2 (function not implemented, Linux 5.6 has it)", "Linux 5.12", ""},
		"no seccomp": {remove("proc/sys/kernel/seccomp"), "seccomp", Wrong, "no seccomp", "CONFIG_SECCOMP_FILTER", ""},
		"no landlock": {change(func(n *node) { n.kernel = fakeKernel{"landlock_create_ruleset": unix.ENOSYS} }),
			"landlock", Warning, "switched off", "Linux 5.19", ""},
		"no pid namespace": {remove("proc/self/ns/pid"), "namespaces", Wrong, "of kind pid", "CONFIG_NAMESPACES", ""},
		"no overlay":       {write("proc/filesystems", "\text4\n"), "overlayfs", Warning, "not loaded", "modprobe overlay", ""},
		"no fuse":          {remove("dev/fuse"), "fuse", Warning, "no /dev/fuse", "modprobe fuse", ""},
		"programs of anybody": {chmod("var/lib/containerd-shim-wasm", 0o777), "programs", Wrong,
			"others than root", "chmod 700 /var/lib/containerd-shim-wasm", ""},
		"cache of anybody": {chmod("var/lib/containerd-shim-wasm/cache", 0o1777), "cache", Wrong,
			"others than root", "rm -rf /var/lib/containerd-shim-wasm/cache/*", ""},
		"cache of somebody": {func(t *testing.T, n *node) {
			if err := os.Chown(n.path("var/lib/containerd-shim-wasm/cache"), 1000, -1); err != nil {
				t.Fatal(err)
			}
		}, "cache", Wrong, "belongs to user 1000", "chown root", ""},
		"cache is a file": {func(t *testing.T, n *node) {
			remove("var/lib/containerd-shim-wasm/cache")(t, n)
			write("var/lib/containerd-shim-wasm/cache", "")(t, n)
		}, "cache", Wrong, "no folder", "remove it", ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := fake(t, good())
			tc.harm(t, n)
			results := n.run(context.Background())
			got := row(t, results, tc.check)
			if got.State != tc.state || !strings.Contains(got.Found, tc.found) || !strings.Contains(got.Mend, tc.mend) {
				t.Errorf("the row is %+v", got)
			}
			for _, r := range results {
				if r.State != OK && r.Check != tc.check && !strings.Contains(tc.also, r.Check) {
					t.Errorf("another row: %+v", r)
				}
			}
			if Healthy(results) == (tc.state == Wrong) {
				t.Errorf("healthy: %t", Healthy(results))
			}
		})
	}
}

// The file system below a folder can forbid what the folder allows.
func TestFileSystems(t *testing.T) {
	for name, tc := range map[string]struct {
		flags uintptr
		size  string
		check string
		state State
		found string
	}{
		"noexec programs": {unix.MS_NOEXEC, "512m", "programs", OK, libDir},
		"noexec cache":    {unix.MS_NOEXEC, "512m", "cache", OK, "free"},
		"read-only":       {unix.MS_RDONLY, "512m", "cache", Warning, "read-only"},
		"full":            {0, "1m", "cache", Warning, "MiB free"},
	} {
		t.Run(name, func(t *testing.T) {
			n := fake(t, good())
			at := n.path(libDir)
			if err := unix.Mount("doctor", at, "tmpfs", tc.flags, "mode=700,size="+tc.size); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(at, 0); err != nil {
					t.Error(err)
				}
			})
			if got := row(t, n.run(context.Background()), tc.check); got.State != tc.state || !strings.Contains(got.Found, tc.found) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A containerd that does not answer leaves questions open, and only the first row is wrong.
func TestContainerdDown(t *testing.T) {
	o := Options{Address: filepath.Join(t.TempDir(), "none.sock"), Root: fake(t, good()).options.Root}
	n := &node{options: o, kernel: fakeKernel{}, containerd: askContainerd(t.Context(), o)}
	results := n.run(t.Context())
	if got := row(t, results, "containerd"); got.State != Wrong || !strings.Contains(got.Found, o.Address) {
		t.Errorf("%+v", got)
	}
	for _, name := range []string{"binary", "runtime", "image pulls", "test run"} {
		if got := row(t, results, name); got.State != Warning || !strings.Contains(got.Found, "not known") {
			t.Errorf("%+v", got)
		}
	}
}

// What the folders of a new node lack is no fault: the first container makes them.
func TestNewNode(t *testing.T) {
	files := good()
	maps.DeleteFunc(files, func(name, _ string) bool {
		return strings.HasPrefix(name, "var/lib/containerd-shim-wasm") || strings.HasPrefix(name, "etc/containerd-shim-wasm")
	})
	for _, r := range fake(t, files).run(context.Background()) {
		if r.State != OK {
			t.Errorf("%+v", r)
		}
	}
}

func TestCgroupVersion1(t *testing.T) {
	files := good()
	delete(files, "sys/fs/cgroup/cgroup.controllers")
	for _, name := range []string{"cpu,cpuacct", "freezer", "memory", "pids", "unified"} {
		files["sys/fs/cgroup/"+name+"/cgroup.procs"] = ""
	}
	if got := checkCgroups(t.Context(), fake(t, files)); got.State != OK || !strings.Contains(got.Found, "hybrid") {
		t.Errorf("%+v", got)
	}
	delete(files, "sys/fs/cgroup/pids/cgroup.procs")
	if got := checkCgroups(t.Context(), fake(t, files)); got.State != Wrong || !strings.Contains(got.Found, "without pids") {
		t.Errorf("%+v", got)
	}
}

// The kernel that runs the tests runs Wasm containers, too.
func TestRunningKernel(t *testing.T) {
	for _, call := range systemCalls {
		if err := (running{}).has(call); err != nil {
			t.Errorf("%s: %v", call.name, err)
		}
	}
	unknown := systemCall{"none", "", func() error { return unix.ENOSYS }}
	if (running{}).has(unknown) == nil {
		t.Error("a call that the kernel does not know counts as known")
	}
}

func TestConfigFlag(t *testing.T) {
	for line, want := range map[string]string{
		"containerd":                     "/etc/containerd/config.toml",
		"containerd --config /a":         "/a",
		"containerd -c /a":               "/a",
		"containerd --config=/a -l info": "/a",
		"containerd --address --config":  "/etc/containerd/config.toml",
	} {
		if got := configFlag(strings.Fields(line)); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

func TestPrint(t *testing.T) {
	results := []Result{
		{"containerd", OK, "version 2.2.9", ""},
		{"cache", Wrong, "of\nanybody", "chmod 700 it"},
	}
	var text, document bytes.Buffer
	if err := errors.Join(Print(&text, results), PrintJSON(&document, results)); err != nil {
		t.Fatal(err)
	}
	want := "CHECK       STATE  FOUND\ncontainerd  ok     version 2.2.9\ncache       wrong  of anybody\n                   -> chmod 700 it\n"
	if text.String() != want {
		t.Errorf("the table is\n%s", text.String())
	}
	var got []Result
	if err := json.Unmarshal(document.Bytes(), &got); err != nil || !slices.Equal(got, results) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestPlaces(t *testing.T) {
	if libDir != module.LibDir {
		t.Errorf("the shim keeps its programs in %s", module.LibDir)
	}
}

// containerd, a Go program, sees the first of several variables of one name.
func TestFirstPath(t *testing.T) {
	env := []string{"PATHS=x", "PATH=/first", "FIRST_PATH=asked", "PATH=/second"}
	if os.Getenv("FIRST_PATH") != "" {
		if got, want := firstPath(env), os.Getenv("PATH"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		return
	}
	// Not by exec.Cmd, which would leave only the last one.
	process, err := os.StartProcess("/proc/self/exe", []string{"test", "-test.run", "^TestFirstPath$"}, &os.ProcAttr{
		Env: env, Files: []*os.File{nil, os.Stdout, os.Stderr},
	})
	if err != nil {
		t.Fatal(err)
	}
	if state, err := process.Wait(); err != nil || !state.Success() {
		t.Errorf("%v, %v", state, err)
	}
	if got := firstPath(nil); got != "" {
		t.Errorf("none: got %q", got)
	}
}

func TestStartOf(t *testing.T) {
	const tick = time.Second / 100
	before := time.Now()
	command := exec.Command("sleep", "infinity")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
	})
	after := time.Now()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", command.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if got := startOf(string(stat)); got.Before(before) || got.After(after.Add(2*tick)) {
		t.Errorf("it started at %v, between %v and %v", got, before, after)
	}
	for _, stat := range []string{"", "1 (a) b) S 1", "1 (a) S" + strings.Repeat(" x", 30)} {
		if got := startOf(stat); !got.IsZero() {
			t.Errorf("%q: %v", stat, got)
		}
	}
}
