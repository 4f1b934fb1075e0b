package step_test

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

// request is one that a program made of the API server.
type request struct {
	method, path, contentType string
	body                      any // as JSON
}

// apiServer is as much of a Kubernetes API server as argoexec uses.
type apiServer struct {
	*httptest.Server
	// answer gives the answer to the nth request, from 0, or status 0 for the usual one.
	answer func(n int, r request) (status int, body string)

	lock     sync.Mutex
	requests []request
	exists   bool
}

const token = "the-token"

func newAPIServer(t *testing.T, answer func(n int, r request) (int, string)) *apiServer {
	s := &apiServer{answer: answer}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // programs that end abruptly
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// certificate is the CA's.
func (s *apiServer) certificate() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	data, _ := io.ReadAll(r.Body)
	seen := request{method: r.Method, path: r.URL.RequestURI(), contentType: r.Header.Get("Content-Type")}
	_ = json.Unmarshal(data, &seen.body)
	if o, ok := seen.body.(map[string]any); ok {
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

const results = "/apis/argoproj.io/v1alpha1/namespaces/ns-1/workflowtaskresults"

func (s *apiServer) usual(r *http.Request, body []byte) (int, string) {
	switch {
	case r.Header.Get("Authorization") != "Bearer "+token:
		return http.StatusUnauthorized, failure(401, "Unauthorized", "Unauthorized")
	case r.Method == http.MethodPost && r.URL.Path == results:
		if s.exists {
			return http.StatusConflict, failure(409, "AlreadyExists", `workflowtaskresults.argoproj.io "node-1" already exists`)
		}
		return http.StatusCreated, string(body)
	case r.Method == http.MethodPatch && strings.HasPrefix(r.URL.Path, results+"/"):
		if !s.exists {
			return http.StatusNotFound, failure(404, "NotFound", `workflowtaskresults.argoproj.io "node-1" not found`)
		}
		return http.StatusOK, `{"apiVersion":"argoproj.io/v1alpha1","kind":"WorkflowTaskResult","metadata":{"name":"node-1"}}`
	}
	return http.StatusNotFound, failure(404, "NotFound", "the server could not find the requested resource")
}

// failure is a Status object.
func failure(code int, reason, message string) string {
	data, _ := json.Marshal(map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "message": message, "reason": reason, "code": code,
	})
	return string(data)
}

// seen returns the requests so far.
func (s *apiServer) seen() []request {
	s.lock.Lock()
	defer s.lock.Unlock()
	return slices.Clone(s.requests)
}
