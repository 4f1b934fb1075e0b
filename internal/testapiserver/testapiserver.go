// Package testapiserver is as much of a Kubernetes API server as Argo's executor uses. It holds no code that is shipped.
package testapiserver

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Request is one that a program made of the API server.
type Request struct {
	Method, Path, ContentType string
	Body                      any // as JSON
}

// Answer gives the answer to the nth request, from 0, or status 0 for the usual one.
type Answer func(n int, r Request) (status int, body string)

// Server knows the WorkflowTaskResult of one step.
type Server struct {
	*httptest.Server

	lock     sync.Mutex
	answer   Answer // nil for the usual answers
	requests []Request
	exists   bool
}

// Token is the one of the service account, whose namespace is Namespace.
const (
	Token     = "the-token"
	Namespace = "ns-1"
)

// New starts a server.
func New(t *testing.T, answer Answer) *Server {
	s := &Server{answer: answer}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // programs that end abruptly
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// Certificate returns that of the CA.
func (s *Server) Certificate() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Server.Certificate().Raw}))
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, _ := io.ReadAll(r.Body)
	seen := Request{Method: r.Method, Path: r.URL.RequestURI(), ContentType: r.Header.Get("Content-Type")}
	_ = json.Unmarshal(data, &seen.Body)
	if o, ok := seen.Body.(map[string]any); ok {
		if md, ok := o["metadata"].(map[string]any); ok {
			delete(md, "creationTimestamp") // null, from client-go
			if len(md) == 0 {
				delete(o, "metadata")
			}
		}
	}
	s.lock.Lock()
	n := len(s.requests)
	s.requests = append(s.requests, seen)
	status, body := s.usual(r, data)
	if s.answer != nil {
		if other, text := s.answer(n, seen); other != 0 {
			status, body = other, text
		}
	}
	if r.Method == http.MethodPost && status == http.StatusCreated {
		s.exists = true
	}
	s.lock.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

const results = "/apis/argoproj.io/v1alpha1/namespaces/" + Namespace + "/workflowtaskresults"

func (s *Server) usual(r *http.Request, body []byte) (int, string) {
	switch {
	case r.Header.Get("Authorization") != "Bearer "+Token:
		return http.StatusUnauthorized, Failure(401, "Unauthorized", "Unauthorized")
	case r.Method == http.MethodPost && r.URL.Path == results:
		if s.exists {
			return http.StatusConflict, Failure(409, "AlreadyExists", `workflowtaskresults.argoproj.io "node-1" already exists`)
		}
		return http.StatusCreated, string(body)
	case r.Method == http.MethodPatch && strings.HasPrefix(r.URL.Path, results+"/"):
		if !s.exists {
			return http.StatusNotFound, Failure(404, "NotFound", `workflowtaskresults.argoproj.io "node-1" not found`)
		}
		return http.StatusOK, `{"apiVersion":"argoproj.io/v1alpha1","kind":"WorkflowTaskResult","metadata":{"name":"node-1"}}`
	}
	return http.StatusNotFound, Failure(404, "NotFound", "the server could not find the requested resource")
}

// Failure is a Status object.
func Failure(code int, reason, message string) string {
	data, _ := json.Marshal(map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "message": message, "reason": reason, "code": code,
	})
	return string(data)
}

// Answer exchanges the function that gives the answers.
func (s *Server) Answer(with Answer) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.answer = with
}

// Create makes the result exist.
func (s *Server) Create() {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.exists = true
}

// Seen returns the requests so far.
func (s *Server) Seen() []Request {
	s.lock.Lock()
	defer s.lock.Unlock()
	return slices.Clone(s.requests)
}
