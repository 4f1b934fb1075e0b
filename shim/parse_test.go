package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
)

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAPIVersion(t *testing.T) {
	options, err := wrap(&bootapi.BootstrapParams{Namespace: "any message will do"})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		input []byte
		want  int
	}{
		"nothing":                {nil, 2},
		"runtime options":        {marshal(t, options), 2},
		"parameters":             {marshal(t, &bootapi.BootstrapParams{InstanceID: "a", ContainerdVersion: "2.4.2"}), 3},
		"parameters, no version": {marshal(t, &bootapi.BootstrapParams{InstanceID: "a"}), 2},
		"garbage":                {[]byte("\xff\xff\xff"), 2},
	} {
		if got := apiVersion(test.input); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}

func TestStartTime(t *testing.T) {
	own, err := startTime(os.Getpid())
	if err != nil || own == 0 {
		t.Fatalf("got %d, %v", own, err)
	}
	if again, err := startTime(os.Getpid()); err != nil || again != own {
		t.Errorf("got %d, %v after %d", again, err, own)
	}
	first, err := startTime(1)
	if err != nil || first > own {
		t.Errorf("process 1 started at %d, %v, this one at %d", first, err, own)
	}
	if _, err := startTime(0); err == nil || !strings.Contains(err.Error(), "process 0") {
		t.Errorf("got %v", err)
	}
}

// A process may have any name, even one like the fields that follow its name.
func TestStartTimeOfAnOddName(t *testing.T) {
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	odd := filepath.Join(t.TempDir(), "a) R 1 2 (b")
	if err := os.Symlink(cat, odd); err != nil {
		t.Fatal(err)
	}
	before, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(odd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started, err := startTime(cmd.Process.Pid)
	if err != nil || started < before || started > before+1<<32 {
		t.Errorf("got %d, %v; this process started at %d", started, err, before)
	}
	if err := stdin.Close(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestGroupOf(t *testing.T) {
	for name, test := range map[string]struct {
		annotations map[string]string
		want        string
	}{
		"none":             {nil, "id"},
		"pod":              {map[string]string{sandboxIDAnnotation: "pod"}, "pod"},
		"group":            {map[string]string{"io.containerd.runc.v2.group": "group"}, "group"},
		"group before pod": {map[string]string{sandboxIDAnnotation: "pod", "io.containerd.runc.v2.group": "group"}, "group"},
	} {
		t.Run(name, func(t *testing.T) {
			spec, err := json.Marshal(map[string]any{"annotations": test.annotations})
			if err != nil {
				t.Fatal(err)
			}
			bundle := filepath.Dir(write(t, "config.json", string(spec)))
			if got, err := groupOf(bundle, "id"); err != nil || got != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
	if _, err := groupOf(t.TempDir(), "id"); err == nil {
		t.Error("no specification, no error")
	}
	bundle := filepath.Dir(write(t, "config.json", "{"))
	if _, err := groupOf(bundle, "id"); err == nil || !strings.Contains(err.Error(), "decode specification") {
		t.Errorf("got %v", err)
	}
}

// Different groups have different sockets.
func TestSocketPath(t *testing.T) {
	seen := map[string]string{}
	for _, address := range []string{"/run/a.sock", "/run/b.sock"} {
		for _, namespace := range []string{"k8s.io", "default", "k8s.io\x00x"} {
			for _, group := range []string{"x", "y"} {
				path := socketPath(Flags{Address: address, Namespace: namespace}, group)
				this := fmt.Sprintf("%q %q %q", address, namespace, group)
				if other, ok := seen[path]; ok {
					t.Errorf("%s and %s share %s", this, other, path)
				}
				seen[path] = this
				if len(path) > 107 {
					t.Errorf("%s is too long for unix(7)", path)
				}
			}
		}
	}
}
