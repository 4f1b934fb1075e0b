package incluster

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testsystemd"
)

func TestParseRestart(t *testing.T) {
	for text, want := range map[string]string{
		"systemd:k3s.service":         "systemd, unit k3s.service",
		"exec:/host/rc-service a one": "/host/rc-service a one",
		"none":                        "left to the operator",
	} {
		r, err := ParseRestart(text, SystemdSocket)
		if err != nil || r.String() != want || r.none() != (text == "none") {
			t.Errorf("%q: %q, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "systemd", "systemd:", "exec:", "exec: ", "yes", "none:"} {
		if _, err := ParseRestart(text, ""); err == nil || !strings.Contains(err.Error(), "none") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestRestartByCommand(t *testing.T) {
	for text, want := range map[string]string{
		"exec:true":              "",
		"exec:ls /no/such/place": "No such file",
		"exec:false":             "exit status 1",
	} {
		r, err := ParseRestart(text, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := r.check(t.Context()); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if err := r.restart(t.Context()); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	r, err := ParseRestart("exec:/no/such/program", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.check(t.Context()); err == nil {
		t.Error("a command that does not exist was accepted")
	}
}

func TestRestartBySystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "private")
	var failure error
	server, err := testsystemd.Serve(socket, "containerd.service", func(context.Context) error { return failure })
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	r, err := ParseRestart("systemd:containerd.service", socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.restart(t.Context()); err != nil || server.Restarts() != 1 {
		t.Fatalf("%d restarts, %v", server.Restarts(), err)
	}
	failure = errors.New("no")
	if err := r.restart(t.Context()); err == nil || !strings.Contains(err.Error(), "journalctl -u containerd.service") {
		t.Fatalf("got %v", err)
	}
	r.unit = "k3s.service"
	if err := r.check(t.Context()); err == nil || !strings.Contains(err.Error(), "no unit k3s.service") {
		t.Errorf("got %v", err)
	}
	r.socket += "-gone"
	if err := r.check(t.Context()); err == nil || !strings.Contains(err.Error(), "--restart=none") {
		t.Errorf("got %v", err)
	}
}
