package remote

import (
	"net"
	"path/filepath"
	"testing"
)

// A shim that ends while it is asked has no artifacts.
func TestListOfAShimThatEnds(t *testing.T) {
	folder := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(folder, "x.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			conn.Close()
		}
	}()
	if all, err := ListArtifacts(t.Context(), folder); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v", all, err)
	}
}
