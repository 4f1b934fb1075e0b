// Package tests3 runs real S3 servers: versitygw, and MinIO for what that does not have. It holds no code that is shipped.
package tests3

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// The credentials and the region of the server.
const (
	Access = "access-1"
	Secret = "secret-1"
	Region = "us-east-1"
)

// Server is an S3 server, versitygw. Its buckets are folders of Buckets.
type Server struct {
	Address string // HOST:PORT
	Buckets string

	dir string
	cmd *exec.Cmd
}

// Start starts a server. The caller calls Stop, even if there is an error.
func Start() (*Server, error) {
	s := &Server{}
	folders, err := testnode.Tools(context.Background(), "versitygw")
	if err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "s3"); err != nil {
		return s, err
	}
	s.Buckets = s.dir + "/buckets"
	if err := errors.Join(os.Mkdir(s.Buckets, 0o755), os.Mkdir(s.dir+"/metadata", 0o755)); err != nil {
		return s, err
	}
	if s.Address, err = freeAddress(); err != nil {
		return s, err
	}
	// Metadata is not kept in extended attributes, which not every file system has.
	cmd := exec.Command(folders[0]+"/versitygw", "--port", s.Address, "--region", Region, "--health", "/health", "--quiet",
		"posix", "--sidecar", s.dir+"/metadata", s.Buckets)
	cmd.Env = []string{"ROOT_ACCESS_KEY=" + Access, "ROOT_SECRET_KEY=" + Secret}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return s, err
	}
	s.cmd = cmd
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s, poll.Until(ctx, func() (bool, error) {
		response, err := http.Get("http://" + s.Address + "/health")
		if err != nil {
			return false, nil
		}
		return true, response.Body.Close()
	})
}

// freeAddress returns an address at which nobody listens.
func freeAddress() (string, error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return free.Addr().String(), free.Close()
}

// Stop ends the server and removes its buckets.
func (s *Server) Stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
	if s.dir != "" {
		os.RemoveAll(s.dir)
	}
}
