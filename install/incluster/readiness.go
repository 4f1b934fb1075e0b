package incluster

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// readiness answers the kubelet's probe: 200 when the node is installed and labelled,
// else 503 with the reason.
type readiness struct {
	mu     sync.Mutex
	reason string
}

// set says why the node is not ready; with an empty reason it is.
func (r *readiness) set(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reason = reason
}

func (r *readiness) ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reason == ""
}

func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reason != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, r.reason+"\n") // the prober may be gone
		return
	}
	_, _ = io.WriteString(w, "ready\n")
}

// serve listens on the address, unless it is empty, until the returned function is called.
func (r *readiness) serve(address string) (func(), error) {
	if address == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the readiness probe: %w", err)
	}
	server := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener)
	return func() { server.Close() }, nil
}
