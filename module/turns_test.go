package module

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/module/filelock"
)

func turnLoader(t *testing.T) *Loader {
	t.Helper()
	return &Loader{StateDir: t.TempDir(), Log: logrus.NewEntry(logrus.New())}
}

// impatient returns settings that allow at most so many compilations, and wait for no turn.
func impatient(most int) config.Config {
	return config.Config{MaxCompilations: most, CompileTimeout: time.Nanosecond, Source: "config.toml"}
}

// takeBoth takes a pod's turn and then the node's.
func takeBoth(ctx context.Context, l *Loader, payer Account, s config.Config) (*turn, error) {
	turn, err := l.takeTurn(ctx, payer, s)
	if err != nil {
		return nil, err
	}
	if err := turn.takeNodeTurn(ctx); err != nil {
		turn.end()
		return nil, err
	}
	return turn, nil
}

// A pod compiles one module at a time, and a tenant a quarter of the node's compilations, so that three
// tenants leave a turn for others. No pod or tenant is counted twice.
func TestTurns(t *testing.T) {
	l, s := turnLoader(t), impatient(8)
	var held []*turn // their locks go when nothing leads to them
	defer func() { runtime.KeepAlive(held) }()
	take := func(tenant, pod, refusal string) *turn {
		t.Helper()
		turn, err := takeBoth(t.Context(), l, Account{Tenant: tenant, Pod: pod}, s)
		if refusal == "" && err != nil {
			t.Fatalf("pod %s of %s: %v", pod, tenant, err)
		}
		if refusal != "" && (err == nil || !strings.Contains(err.Error(), refusal) || !strings.Contains(err.Error(), "max_compilations in config.toml")) {
			t.Fatalf("pod %s of %s got %v, want %q", pod, tenant, err, refusal)
		}
		held = append(held, turn)
		return turn
	}
	first := take("a", "1", "")
	take("a", "1", "its pod does compile")
	take("a", "2", "")
	take("a", "3", "its namespace compiles")
	take("b", "4", "")
	take("b", "5", "")
	take("c", "6", "")
	take("c", "7", "")
	take("d", "8", "")
	take("", "", "")
	take("d", "9", "others compile")
	take("", "", "others compile")
	first.end()
	take("d", "9", "").end()
	take("a", "1", "").end()
	if names, _ := filepath.Glob(filepath.Join(l.StateDir, turnsDir, "*")); len(names) != 6*3+1 {
		t.Errorf("locks of %q are left, of six turns and one of the operator's", names)
	}
}

func TestTurnOnASmallNode(t *testing.T) {
	l, s := turnLoader(t), impatient(1)
	turn, err := takeBoth(t.Context(), l, Account{Tenant: "a", Pod: "1"}, s)
	if err != nil {
		t.Fatal(err)
	}
	turn.end()
}

func TestWaitForATurnIsCalledOff(t *testing.T) {
	l, s := turnLoader(t), impatient(1)
	s.CompileTimeout = time.Hour
	turn, err := takeBoth(t.Context(), l, Account{}, s)
	if err != nil {
		t.Fatal(err)
	}
	defer turn.end()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := takeBoth(ctx, l, Account{}, s); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The next in turn, or the deletion of another container, cleans up what a dead daemon has noted. The note of
// a living daemon stays.
func TestNoteOfADeadDaemon(t *testing.T) {
	l, s := turnLoader(t), impatient(1)
	turn, err := takeBoth(t.Context(), l, Account{}, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := turn.note(location{CgroupsPath: "/wasm-test-none/gone"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(l.StateDir, turnsDir, "node-0")
	if err := RemoveDeadPreparers(l.StateDir); err != nil {
		t.Error(err)
	}
	note, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(note), "/wasm-test-none/gone") {
		t.Errorf("a living daemon's note is %q, %v", note, err)
	}
	turn.end()
	for _, left := range []string{string(note), `{"Cgroups`} {
		if err := os.WriteFile(path, []byte(left), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := RemoveDeadPreparers(l.StateDir); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the note %q stays: %v", left, err)
		}
		if _, err := filelock.Try(path); err != nil {
			t.Error(err)
		}
		os.Remove(path)
	}
}

// A module is hashed while another is compiled: otherwise a probe of the pod would wait for that compilation.
func TestHashingWaitsForNoCompilation(t *testing.T) {
	l, s, payer := turnLoader(t), impatient(1), Account{Tenant: "a", Pod: "1"}
	turn, err := takeBoth(t.Context(), l, payer, s)
	if err != nil {
		t.Fatal(err)
	}
	defer turn.end()
	hashing, err := l.takeHashTurn(t.Context(), payer, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.takeHashTurn(t.Context(), payer, s); err == nil || !strings.Contains(err.Error(), "its pod does hash") {
		t.Errorf("two are hashed at once: %v", err)
	}
	hashing.end()
}
