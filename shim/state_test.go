package shim

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestStateKeepsTheExit(t *testing.T) {
	bundle := t.TempDir()
	want := state{PID: 4711, Started: 42, Systemd: true}
	if err := saveState(bundle, want); err != nil {
		t.Fatal(err)
	}
	if got, err := readState(bundle); err != nil || got != want {
		t.Fatalf("before the exit: %+v, %v, want %+v", got, err, want)
	}
	ended := exit{Status: 137, At: time.Unix(1700000000, 5).UTC()}
	if err := appendExit(bundle, ended); err != nil {
		t.Fatal(err)
	}
	got, err := readState(bundle)
	if err != nil || got.exit == nil || got.exit.Status != ended.Status || !got.exit.At.Equal(ended.At) {
		t.Fatalf("after the exit: %+v, %v, want %+v", got, err, ended)
	}
}

// An exit that was not written to its end, because the daemon died, is ignored.
func TestStateWithoutWholeExit(t *testing.T) {
	bundle := t.TempDir()
	if err := saveState(bundle, state{PID: 4711}); err != nil {
		t.Fatal(err)
	}
	if err := appendExit(bundle, exit{Status: 137}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(bundle, stateFile)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-3); err != nil {
		t.Fatal(err)
	}
	if got, err := readState(bundle); err != nil || got.PID != 4711 || got.exit != nil {
		t.Errorf("got %+v, %v, want the state without an exit", got, err)
	}
}
