package install

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSnapshot(t *testing.T) {
	dir := t.TempDir()
	plain, link, absent := filepath.Join(dir, "plain"), filepath.Join(dir, "link"), filepath.Join(dir, "absent")
	if err := os.WriteFile(plain, []byte("before"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(plain, 1000, 1001); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("plain", link); err != nil {
		t.Fatal(err)
	}
	s, err := TakeSnapshot([]string{link, absent})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, path := range []string{link, absent} {
		if err := put(path, []byte("after, and longer")); err != nil {
			t.Fatal(err)
		}
	}
	// Twice: an attempt that failed half way may be made again.
	for range 2 {
		if err := s.Restore(); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(plain); err != nil || string(text) != "before" {
			t.Errorf("got %q, %v", text, err)
		}
		if _, err := os.Lstat(absent); !os.IsNotExist(err) {
			t.Errorf("what was not there is: %v", err)
		}
	}
	if target, err := os.Readlink(link); err != nil || target != "plain" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	info, err := os.Stat(plain)
	if err != nil {
		t.Fatal(err)
	}
	if uid, gid := ownerOf(info); info.Mode() != 0o640 || uid != 1000 || gid != 1001 {
		t.Errorf("it is %v of %d:%d", info.Mode(), uid, gid)
	}
	if _, err := TakeSnapshot([]string{filepath.Join(plain, "below")}); err == nil {
		t.Error("a file below a file was remembered")
	}
}

func TestCheckRunning(t *testing.T) {
	const good = `{"containerd":{"runtimes":{"wasm":{"runtimeType":"io.containerd.wasm.v1",` +
		`"PodAnnotations":["wasm.shim/*","module.wasm.image/*","run.oci.handler"],"options":{"ConfigPath":"/etc/containerd-shim-wasm/config.toml"}}}},"x":1}`
	if err := CheckRunning([]byte(good), ""); err != nil {
		t.Error(err)
	}
	for name, text := range map[string]string{
		"no JSON":     "",
		"no runtimes": `{}`,
		"no entry":    `{"containerd":{"runtimes":{"runc":{}}}}`,
		"other type":  `{"containerd":{"runtimes":{"wasm":{"runtimeType":"io.containerd.runc.v2"}}}}`,
	} {
		if err := CheckRunning([]byte(text), ""); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := CheckRunning([]byte(good), "/elsewhere"); err == nil {
		t.Error("another ConfigPath was accepted")
	}
	if err := CompareRunning([]byte(`{"containerd":{"runtimes":{}},"x":1}`), []byte(good)); err != nil {
		t.Error(err)
	}
	if err := CompareRunning([]byte(`{"containerd":{"runtimes":{}},"x":2}`), []byte(good)); err == nil {
		t.Error("another x was not seen")
	}
}

func TestRunningSettings(t *testing.T) {
	const ours = `"wasm":{"options":{"ConfigPath":"/etc/x.toml"}}`
	for text, want := range map[string]struct {
		path          string
		systemd, told bool
	}{
		`{"containerd":{"runtimes":{` + ours + `,"runc":{"options":{"SystemdCgroup":true}}}}}`:                          {"/etc/x.toml", true, true},
		`{"containerd":{"runtimes":{` + ours + `,"runc":{"options":{}}}}}`:                                              {"/etc/x.toml", false, true},
		`{"containerd":{"defaultRuntimeName":"crun","runtimes":{"crun":{"options":{"SystemdCgroup":true}},"runc":{}}}}`: {"", true, true},
		`{"containerd":{"defaultRuntimeName":"gone","runtimes":{"runc":{"options":{"SystemdCgroup":true}}}}}`:           {"", false, false},
		`{"containerd":{"defaultRuntimeName":"wasm","runtimes":{` + ours + `}}}`:                                        {"/etc/x.toml", false, false},
		`nothing`: {"", false, false},
	} {
		path := RunningConfigPath([]byte(text))
		systemd, told := RunningSystemdCgroup([]byte(text))
		if path != want.path || systemd != want.systemd || told != want.told {
			t.Errorf("%s: %q, %t, %t", text, path, systemd, told)
		}
	}
}
