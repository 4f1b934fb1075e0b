package taskresult

import (
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// server answers each request with the next of its answers, and with success after the last.
type server struct {
	*httptest.Server
	requests []string
	answers  []func(w http.ResponseWriter)
}

func serve(t *testing.T, answers ...func(w http.ResponseWriter)) (*server, *Client) {
	t.Helper()
	s := &server{answers: answers}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests = append(s.requests, r.Method+" "+r.Header.Get("Authorization"))
		if len(s.answers) > 0 {
			answer := s.answers[0]
			s.answers = s.answers[1:]
			answer(w)
		}
	}))
	t.Cleanup(s.Close)
	root := t.TempDir()
	dir := filepath.Join(root, account)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, content := range map[string]string{"token": "first\n", "namespace": "ns", "ca.crt": string(ca)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	config, err := InCluster(func(name string) string {
		return map[string]string{"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}[name]
	}, root)
	if err != nil {
		t.Fatal(err)
	}
	client, err := New(config, Of{Node: "n", Workflow: "w", WorkflowUID: "u"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s, client
}

func status(code int, reason, message string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","status":"Failure","reason":%q,"message":%q,"code":%d}`, reason, message, code)
	}
}

func plainly(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(code) }
}

// Which refusals are final, and what they say.
func TestFinalErrors(t *testing.T) {
	for want, answer := range map[string]func(http.ResponseWriter){
		"no access":                  status(403, "Forbidden", "no access"),
		"credentials":                plainly(401),
		"gone":                       status(410, "Expired", "gone"),
		"conflict":                   status(409, "Conflict", "conflict"),
		"bad":                        status(400, "BadRequest", "bad"),
		"an error on the server":     plainly(500),
		"could not find the":         plainly(404),
		"status code 302":            func(w http.ResponseWriter) { w.Header().Set("Location", "https://example.com/"); w.WriteHeader(302) },
		"status code 418":            plainly(418),
		"webhook denied the request": status(403, "Forbidden", "webhook denied the request"),
	} {
		s, c := serve(t, answer)
		if err := c.Report(t.Context(), Result{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if len(s.requests) != 1 {
			t.Errorf("%s: asked %q", want, s.requests)
		}
	}
}

func TestTransientErrors(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"429": plainly(429), "503": plainly(503), "504": plainly(504), "ServerTimeout": status(500, "ServerTimeout", "x"),
		"etcd": status(500, "InternalError", "etcdserver: leader changed"), "quota": status(403, "Forbidden", "exceeded quota: x"),
		"cut": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"asked to wait": func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := serve(t, answer)
			if err := c.Report(t.Context(), Result{}); err != nil || len(s.requests) != 2 {
				t.Errorf("got %v after %q", err, s.requests)
			}
		})
	}
}

// Each request has the token that is in the file by then.
func TestTokenIsReadAgain(t *testing.T) {
	s, c := serve(t)
	if err := c.Report(t.Context(), Result{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.config.TokenFile, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Complete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.requests, ", "); got != "POST Bearer first, PATCH Bearer second" {
		t.Errorf("got %s", got)
	}
}

// An object that is gone is made again, and one that is there is changed.
func TestReport(t *testing.T) {
	s, c := serve(t, status(409, "AlreadyExists", "x"), plainly(200), status(404, "NotFound", "x"))
	for range 2 {
		if err := c.Report(t.Context(), Result{Progress: "1/2"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(s.requests); got != 4 || !strings.HasPrefix(s.requests[1], "PATCH") || !strings.HasPrefix(s.requests[3], "POST") {
		t.Errorf("got %q", s.requests)
	}
}

// A server whose certificate is not of the cluster's authority, or for another name, gets no token.
func TestForeignServer(t *testing.T) {
	s, c := serve(t)
	c.http.Transport.(*http.Transport).TLSClientConfig.ServerName = "elsewhere.example.org"
	if err := c.Complete(t.Context()); err == nil || len(s.requests) > 0 {
		t.Errorf("got %v, asked %q", err, s.requests)
	}
}

func TestIsTransient(t *testing.T) {
	for text, want := range map[string]bool{
		"dial tcp 10.0.0.1:443: connect: connection refused": true, "read: connection reset by peer": true, "i/o timeout": true,
		"remote error: tls: bad certificate": false, "dial tcp 10.0.0.1:443: connect: no route to host": false,
	} {
		err := &url.Error{Op: "Post", URL: "https://10.0.0.1", Err: &net.OpError{Op: "dial", Err: errors.New(text)}}
		if got := IsTransient(err); got != want {
			t.Errorf("%s: got %v", text, got)
		}
	}
}

func TestInCluster(t *testing.T) {
	if _, err := InCluster(func(string) string { return "" }, t.TempDir()); err == nil || !strings.Contains(err.Error(), "must be defined") {
		t.Errorf("got %v", err)
	}
	if _, err := InCluster(func(string) string { return "1" }, t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
