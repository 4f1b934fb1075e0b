package testnode

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
)

const (
	stock   = "io.containerd.runc.v2"
	busybox = "example.com/testnode/busybox:latest"
)

var nodes Pool

func TestMain(m *testing.M) { nodes.Main(m) }

func TestNativeContainer(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *Node) {
		node.Import(t, testguest.Busybox(t, busybox))
		node.NoLeaks(t)
		got := node.Ctr(t, "run", "--rm", "--runtime", stock, busybox, "hello", "/hello")
		if want := (Result{Stdout: "hello from native C\n"}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		stdin := CtrOpts{Stdin: strings.NewReader("from stdin")}
		got = node.CtrWith(t, stdin, "run", "--rm", "--runtime", stock, busybox, "code", "sh", "-c", "cat; echo mistake >&2; exit 42")
		if want := (Result{Stdout: "from stdin", Stderr: "mistake\n", Code: 42}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestVersions(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *Node) {
		version, err := node.Client(t).Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(node.Release, node.Version+".") || version.Version != "v"+node.Release {
			t.Errorf("containerd %q is %q and calls itself %q", node.Version, node.Release, version.Version)
		}
	})
}

// A running task shows up as a leak with everything that belongs to it. It outlives containerd.
// After its deletion all of it is gone.
func TestLeaksAndRestart(t *testing.T) {
	nodes.EachVersion(t, func(t *testing.T, node *Node) {
		node.Import(t, testguest.Busybox(t, busybox))
		node.NoLeaks(t)
		before, err := node.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		node.Ctr(t, "run", "--detach", "--runtime", stock, busybox, "sleeper", "sleep", "1000")
		after, err := node.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"process", "mount", "cgroup", "network namespace", "bundle", "shim file"} {
			if !slices.ContainsFunc(after.Since(before), func(thing string) bool { return strings.HasPrefix(thing, kind) }) {
				t.Errorf("no %s among %q", kind, after.Since(before))
			}
		}
		if err := node.Kill9(); err != nil {
			t.Fatal(err)
		}
		if err := node.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := node.Ctr(t, "tasks", "list"); !strings.Contains(got.Stdout, "RUNNING") {
			t.Errorf("after a restart: %+v", got)
		}
		if got := node.Ctr(t, "tasks", "delete", "--force", "sleeper"); got.Code != 0 && got.Code != 137 {
			t.Errorf("deleting the task: %+v", got)
		}
		if got := node.Ctr(t, "containers", "delete", "sleeper"); got.Code != 0 {
			t.Errorf("deleting the container: %+v", got)
		}
	})
}

// Stop removes what a test forgot, paused containers included.
func TestStop(t *testing.T) {
	node, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	before, err := node.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	node.Import(t, testguest.Busybox(t, busybox))
	node.Ctr(t, "run", "--detach", "--runtime", stock, busybox, "forgotten", "sleep", "1000")
	if got := node.Ctr(t, "tasks", "pause", "forgotten"); got.Code != 0 {
		t.Errorf("pausing: %+v", got)
	}
	if err := node.Stop(); err != nil {
		t.Fatal(err)
	}
	left, err := node.Leaks(before)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if _, err := os.Stat(node.Dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", node.Dir, err)
	}
}

func TestCRI(t *testing.T) {
	for _, version := range Versions() {
		t.Run("containerd-"+version, func(t *testing.T) {
			node := New(t, Options{Version: version, CRI: true})
			got := node.Ctr(t, "plugins", "list")
			want := slices.ContainsFunc(strings.Split(got.Stdout, "\n"), func(line string) bool {
				fields := strings.Fields(line)
				return len(fields) > 3 && fields[0] == "io.containerd.grpc.v1" && fields[1] == "cri" && fields[len(fields)-1] == "ok"
			})
			if !want {
				t.Errorf("no CRI plugin that is ok:\n%s", got.Stdout)
			}
		})
	}
}

func TestStartFailsWithTheLog(t *testing.T) {
	_, err := Start(t.Context(), Options{Config: "this is not TOML"})
	if err == nil || !strings.Contains(err.Error(), "extra.toml") {
		t.Errorf("got error %v", err)
	}
}

func TestStartNamesTheUnknownVersion(t *testing.T) {
	_, err := Start(t.Context(), Options{Version: "0.1"})
	if err == nil || !strings.Contains(err.Error(), `"0.1"`) {
		t.Errorf("got error %v", err)
	}
}

// The list in Go and the modules below hack/tools must match.
func TestVersionsArePinned(t *testing.T) {
	root, err := sourceTree()
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command(filepath.Join(root, "hack", "tools", "build.sh"), "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	var pinned []string
	for line := range strings.Lines(string(output)) {
		if version, ok := strings.CutPrefix(strings.Fields(line)[0], "containerd-"); ok {
			pinned = append(pinned, version)
		}
	}
	if !slices.Equal(pinned, Versions()) {
		t.Errorf("pinned are %q, tested %q", pinned, Versions())
	}
}
