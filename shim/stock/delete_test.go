package stock

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/sirupsen/logrus"
)

// A killed stock shim leaves its socket. The delete verb removes the file, whether or not our daemon lives, but never
// the socket of another stock shim of the pod.
func TestDeleteRemovesTheSocketOfADeadShim(t *testing.T) {
	standInForProgram(t)
	for name, test := range map[string]struct {
		socket  func(t *testing.T, path string) // makes the socket
		younger bool                            // than the container's use of it
		stays   bool
	}{
		"dead":                  {socket: leave},
		"dying":                 {socket: hangUp},
		"living":                {socket: serve, stays: true},
		"of the next one":       {socket: leave, younger: true, stays: true},
		"of the living one too": {socket: serve, younger: true, stays: true},
	} {
		for _, orphaned := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				left := Left{ID: "c", Bundle: t.TempDir(), Orphaned: orphaned}
				socket := filepath.Join(t.TempDir(), "s")
				test.socket(t, socket)
				if err := os.Mkdir(filepath.Join(left.Bundle, folder), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(left.file(endpointFile), []byte("unix://"+socket), 0o600); err != nil {
					t.Fatal(err)
				}
				used := time.Now().Add(time.Hour)
				if test.younger {
					used = time.Now().Add(-time.Hour)
				}
				if err := os.Chtimes(left.file(endpointFile), used, used); err != nil {
					t.Fatal(err)
				}
				if _, err := (Flags{Log: logrus.NewEntry(logrus.StandardLogger())}).Delete(left); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Lstat(socket); (err == nil) != test.stays {
					t.Errorf("orphaned is %v: looking for the socket gives %v", orphaned, err)
				}
			})
		}
	}
}

// standInForProgram puts a program that does nothing in the place of the stock shim.
func standInForProgram(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, Program), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", strings.Join([]string{dir, os.Getenv("PATH")}, ":"))
}

func listen(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.UnixListener)
}

// leave leaves the file of a socket that nobody listens on.
func leave(t *testing.T, path string) {
	l := listen(t, path)
	l.SetUnlinkOnClose(false)
	l.Close()
}

// hangUp ends each connection, as a process does that is about to end.
func hangUp(t *testing.T, path string) {
	l := listen(t, path)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
}

// serve answers each call, with an error.
func serve(t *testing.T, path string) {
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t, path)
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l) }()
	t.Cleanup(func() { server.Close(); <-served })
}
