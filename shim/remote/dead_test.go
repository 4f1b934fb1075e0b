package remote

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/containerd/ttrpc"
)

// A daemon that still accepts connections for a moment is dead. A daemon that refuses the request is alive.
func TestIsDead(t *testing.T) {
	socket := func(name string) (string, net.Listener) {
		path := filepath.Join(t.TempDir(), name)
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return path, l
	}
	if !IsDead([]byte(filepath.Join(t.TempDir(), "nobody"))) {
		t.Error("one that was never there is alive")
	}

	dying, hangsUp := socket("dying")
	go func() {
		if conn, err := hangsUp.Accept(); err == nil {
			conn.Close()
		}
	}()
	if !IsDead([]byte(dying)) {
		t.Error("one that hangs up is alive")
	}

	living, l := socket("living")
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l) }()
	if IsDead([]byte(living)) {
		t.Error("one that answers is dead")
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	<-served
}
