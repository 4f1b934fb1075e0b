package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// bind returns ctr's flags that mount a path of the host.
func bind(source, destination, options string) []string {
	return []string{"--mount", "type=bind,src=" + source + ",dst=" + destination + ",options=" + options}
}

// put writes a file on the host and returns its path.
func put(t *testing.T, text string, path ...string) string {
	t.Helper()
	at := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return at
}

// onHost returns the content of a file of the host.
func onHost(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// holds checks the names of the files in a folder of the host.
func holds(t *testing.T, dir, want string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

// readOnly is how the probe reads EROFS. A component gets EIO: the engine's WASI does not know EROFS.
const (
	readOnly            = ": Read-only file system"
	readOnlyOfComponent = ": I/O error"
)

// step is one run of the probe and its wanted result.
type step struct {
	args []string
	want testnode.Result
}

func ok(stdout string, args ...string) step { return step{args, testnode.Result{Stdout: stdout}} }

func refused(stderr string, args ...string) step {
	return step{args, testnode.Result{Stderr: stderr + "\n", Code: 1}}
}

// walk runs each step in a new container.
func walk(t *testing.T, node *testnode.Node, flags []string, steps ...step) {
	t.Helper()
	for _, s := range steps {
		check(t, strings.Join(s.args, " "), node.Ctr(t, runArgs(flags, "volumes", s.args...)...), s.want)
	}
}

func eachVersionWithProbe(t *testing.T, test func(t *testing.T, node *testnode.Node)) {
	t.Helper()
	nodes.EachVersion(t, func(t *testing.T, node *testnode.Node) {
		importProbe(t, node)
		node.NoLeaks(t)
		test(t, node)
	})
}

func TestVolumeReadOnly(t *testing.T) {
	eachVersionWithProbe(t, func(t *testing.T, node *testnode.Node) {
		volume := t.TempDir()
		kept := put(t, "kept", volume, "kept")
		walk(t, node, bind(volume, "/v", "rbind:ro"),
			ok("kept", "read", "/v/kept"),
			refused("open /v/new"+readOnly, "write", "/v/new", "x"),
			refused("open /v/kept"+readOnly, "append", "/v/kept", "x"),
			refused("mkdir /v/dir"+readOnly, "mkdir", "/v/dir"),
			refused("rm /v/kept"+readOnly, "rm", "/v/kept"),
			refused("rename /v/kept"+readOnly, "rename", "/v/kept", "/v/moved"),
			refused("symlink /v/l"+readOnly, "symlink", "kept", "/v/l"),
			refused("link /v/l"+readOnly, "link", "/v/kept", "/v/l"),
		)
		holds(t, volume, "kept")
		if got := onHost(t, kept); got != "kept" {
			t.Errorf("the file is now %q", got)
		}
	})
}

func TestVolumePersists(t *testing.T) {
	eachVersionWithProbe(t, func(t *testing.T, node *testnode.Node) {
		volume := t.TempDir()
		walk(t, node, bind(volume, "/deep/in/v", "rbind:rw"),
			ok("", "write", "/deep/in/v/file", "one"),
			ok("", "append", "/deep/in/v/file", " two"),
			ok("", "mkdir", "/deep/in/v/dir"),
			ok("", "rename", "/deep/in/v/file", "/deep/in/v/dir/file"),
			ok("", "symlink", "dir/file", "/deep/in/v/link"),
			ok("one two", "read", "/deep/in/v/link"),
		)
		holds(t, volume, "dir link")
		if got := onHost(t, filepath.Join(volume, "dir/file")); got != "one two" {
			t.Errorf("the host sees %q", got)
		}
	})
}

func TestVolumeOfOneFile(t *testing.T) {
	eachVersionWithProbe(t, func(t *testing.T, node *testnode.Node) {
		dir := t.TempDir()
		file, beside := put(t, "one", dir, "file"), put(t, "beside", dir, "beside")
		walk(t, node, append(bind(file, "/etc/app/config", "bind:rw"), bind(beside, "/etc/app/fixed", "bind:ro")...),
			ok("config\nfixed\n", "ls", "/etc/app"),
			ok("one", "read", "/etc/app/config"),
			ok("", "append", "/etc/app/config", " two"),
			ok("one two", "read", "/etc/app/config"),
			refused("open /etc/app/fixed"+readOnly, "append", "/etc/app/fixed", "x"),
		)
		if got := onHost(t, file) + onHost(t, beside); got != "one twobeside" {
			t.Errorf("the host sees %q", got)
		}
	})
}

func TestVolumeTmpfs(t *testing.T) {
	eachVersionWithProbe(t, func(t *testing.T, node *testnode.Node) {
		walk(t, node, []string{"--mount", "type=tmpfs,src=tmpfs,dst=/t,options=size=1m"},
			ok("", "write", "/t/file", "text"),
			ok("", "ls", "/t"), // each container has its own
			step{[]string{"fill", "/t/file"}, testnode.Result{Stdout: "filled 1024 KiB: No space left on device\n", Code: 1}},
		)
	})
}

// Nested mounts are visible in the order of the specification.
func TestVolumesNested(t *testing.T) {
	eachVersionWithProbe(t, func(t *testing.T, node *testnode.Node) {
		outer, inner := t.TempDir(), t.TempDir()
		put(t, "hidden", outer, "t", "hidden")
		put(t, "inner", inner, "file")
		flags := append(bind(outer, "/v", "rbind:rw"), "--mount", "type=tmpfs,src=tmpfs,dst=/v/t,options=mode=0755")
		flags = append(flags, bind(inner, "/v/t/inner", "rbind:ro")...)
		walk(t, node, flags,
			ok("t\n", "ls", "/v"),
			ok("inner\n", "ls", "/v/t"),
			ok("inner", "read", "/v/t/inner/file"),
			ok("", "write", "/v/t/lost", "x"),
			refused("open /v/t/inner/new"+readOnly, "write", "/v/t/inner/new", "x"),
			ok("", "write", "/v/kept", "x"),
		)
		holds(t, outer, "kept t")
		holds(t, filepath.Join(outer, "t"), "hidden")
		holds(t, inner, "file")
	})
}

func TestReadOnlyRootfs(t *testing.T) {
	eachVersionWithProbe(t, func(t *testing.T, node *testnode.Node) {
		volume := t.TempDir()
		walk(t, node, nil, ok("", "write", "/new", "x"), ok("", "rm", "/app.wasm"))
		walk(t, node, append(bind(volume, "/v", "rbind:rw"), "--read-only"),
			refused("open /new"+readOnly, "write", "/new", "x"),
			refused("rm /app.wasm"+readOnly, "rm", "/app.wasm"),
			refused("open /dev/../new"+readOnly, "write", "/dev/../new", "x"),
			ok("", "write", "/run/file", "x"),
			ok("", "write", "/v/file", "x"),
		)
		holds(t, volume, "file")
	})
}

// No path leads from a volume to the files beside it on the host: not "..", and no link, made on the host or by
// the guest itself.
func TestVolumeLinksStayInside(t *testing.T) {
	eachVersionWithProbe(t, func(t *testing.T, node *testnode.Node) {
		dir := t.TempDir()
		secret := put(t, "secret", dir, "outside", "secret")
		volume := filepath.Join(dir, "volume")
		put(t, "inside", volume, "inside")
		up := strings.Repeat("../", 20)
		for name, target := range map[string]string{
			"absolute": secret, "relative": "../outside/secret", "climbing": up + secret, "folder": filepath.Dir(secret),
			"root": "/", "self": "/proc/self/root" + secret, "init": "/proc/1/root" + secret, "good": "inside",
			"here": "/v/inside", "top": up,
		} {
			if err := os.Symlink(target, filepath.Join(volume, name)); err != nil {
				t.Fatal(err)
			}
		}
		walk(t, node, bind(volume, "/v", "rbind:rw"),
			ok("inside", "read", "/v/good"),
			ok("inside", "read", "/v/here"),
			ok("inside", "read", "/v/top/v/inside"),
			ok("", "symlink", up+secret, "/v/planted"),
		)
		for _, args := range [][]string{
			{"read", "/v/absolute"}, {"read", "/v/relative"}, {"read", "/v/climbing"}, {"read", "/v/folder/secret"}, {"read", "/v/self"}, {"read", "/v/init"},
			{"read", "/v/planted"}, {"write", "/v/planted", "x"}, {"write", "/v/absolute", "x"}, {"write", "/v/folder/new", "x"}, {"mkdir", "/v/folder/new"},
			{"ls", "/v/folder"}, {"rm", "/v/folder/secret"}, {"rename", "/v/folder/secret", "/v/taken"}, {"link", "/v/folder/secret", "/v/taken"},
			{"read", "/v/../outside/secret"}, {"read", "/v/" + up + secret}, {"read", up + secret}, {"ls", "/v/root" + filepath.Dir(secret)}, {"read", secret},
			{"ls", "/.."}, {"ls", "/v/" + up},
		} {
			got := node.Ctr(t, runArgs(bind(volume, "/v", "rbind:rw"), "escape", args...)...)
			if got.Code != 1 || got.Stdout != "" || got.Stderr == "" {
				t.Errorf("%q: got %+v, want a refusal", args, got)
			}
		}
		holds(t, filepath.Dir(secret), "secret")
		holds(t, dir, "outside volume")
		if got := onHost(t, secret); got != "secret" {
			t.Errorf("the file beside the volume is now %q", got)
		}
	})
}

// The guest sees only its image and its mounts. It does not see the host, the worker that runs it, the compiled
// module or any process.
func TestGuestSeesOnlyItsContainer(t *testing.T) {
	eachVersionWithProbe(t, func(t *testing.T, node *testnode.Node) {
		walk(t, node, nil,
			ok("app.wasm\ndev\nproc\nrun\nsys\n", "ls", "/"),
			ok("", "ls", "/proc"),
			ok("fd\nfull\nmqueue\nnull\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n", "ls", "/dev"),
			ok("", "ls", "/run"),
			ok("ptmx\n", "ls", "/dev/pts"),
			refused("open /proc/new"+readOnly, "write", "/proc/new", "x"),
		)
		for _, args := range [][]string{
			{"read", "/worker"}, {"read", "/module"}, {"ls", "/rootfs"}, {"read", "/../worker"}, {"read", "/../module"}, {"ls", "/../rootfs"}, {"write", "/../module", "x"},
			{"read", "/proc/self/exe"}, {"read", "/proc/self/maps"}, {"read", "/proc/self/mem"}, {"write", "/proc/self/mem", "x"}, {"ls", "/proc/self/root"},
			{"ls", "/proc/1/root"}, {"ls", "/proc/self/fd"}, {"ls", "/proc/self/cwd"}, {"read", "/proc/self/environ"}, {"read", "/proc/sys/kernel/hostname"},
			{"ls", "/dev/fd"}, {"read", "/dev/fd/3"}, {"read", "/dev/fd/9"}, {"read", "/dev/mem"},
			{"read", "/etc/hostname"}, {"ls", node.Dir}, {"ls", "/home"}, {"write", "/sys/power/state", "mem"}, {"mkdir", "/sys/fs/cgroup/new"},
		} {
			got := node.Ctr(t, runArgs(nil, "look", args...)...)
			if got.Code != 1 || got.Stdout != "" || got.Stderr == "" {
				t.Errorf("%q: got %+v, want a refusal", args, got)
			}
		}
	})
}

// A module may be on a volume, also on one that forbids native programs (noexec).
func TestModuleOnVolume(t *testing.T) {
	eachVersionWithProbe(t, func(t *testing.T, node *testnode.Node) {
		volume := t.TempDir()
		put(t, onHost(t, testguest.Build(t, "probe")), volume, "tool.wasm")
		args := append([]string{"run", "--rm", "--runtime", runtime}, bind(volume, "/v", "rbind:ro:noexec:nosuid:nodev")...)
		got := node.Ctr(t, append(args, probeImage, "module", "/v/tool.wasm", "ls", "/v")...)
		check(t, "module on a volume", got, testnode.Result{Stdout: "tool.wasm\n"})
	})
}

// The files that lxcfs provides for a container are mounted over files of /proc, as under runc. No other mount
// over /proc is allowed.
func TestFilesOfProc(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		file := put(t, "made up", t.TempDir(), "file")
		for _, name := range []string{"cpuinfo", "diskstats", "loadavg", "meminfo", "stat", "swaps", "uptime", "version"} {
			path := "/proc/" + name
			run := func(w way, args ...string) testnode.Result {
				flags := append([]string{"run", "--rm", "--runtime", w.runtime}, bind(file, path, "bind:ro")...)
				return node.Ctr(t, append(append(flags, w.image, "proc-"+w.name), args...)...)
			}
			got, want := run(asWasm, "/app.wasm", "read", path), run(asStock, "cat", path)
			if name != "version" {
				check(t, path, got, want)
				continue
			}
			if want.Code != 1 || got.Code != 1 {
				t.Errorf("%s: %+v; runc: %+v", path, got, want)
			}
			wantAll(t, got.Stderr, []string{"mount /proc/version", "inside /proc", "/proc/meminfo"})
		}
	})
}
