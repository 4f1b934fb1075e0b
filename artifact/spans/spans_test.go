package spans

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
)

// collector keeps the last request.
type collector struct {
	*httptest.Server
	request *http.Request
	got     trace.TracesData
	status  int
}

func newCollector(t *testing.T) *collector {
	c := &collector{status: http.StatusOK}
	c.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(body, &c.got)
		}
		if err != nil {
			t.Error(err)
		}
		c.request = r
		w.WriteHeader(c.status)
		_, _ = io.WriteString(w, "an answer")
	}))
	t.Cleanup(c.Close)
	return c
}

// env are the variables for the collector, and more.
func (c *collector) env(t *testing.T, more map[string]string) func(string) string {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	return func(name string) string {
		if value, ok := more[name]; ok {
			return value
		}
		return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": c.URL + "/", "OTEL_EXPORTER_OTLP_CERTIFICATE": ca}[name]
	}
}

var ended = ask.Traced{
	Namespace: "team", Pod: "convert", Container: "main", ID: "1", Began: time.Unix(1, 5), Ended: time.Unix(3, 7),
	Artifacts: []progress.Artifact{
		{Name: "in", Path: "/in/x", Object: "s3://bucket/a/b", Size: 100, Moved: 64, Used: 10, Requests: 2, Retries: 1, Hits: 3, Misses: 4},
		{Name: "out\xff", Path: "/out/x", Object: "s3://bucket/c", Output: true, Moved: 7, State: progress.Failed + "AccessDenied"},
	},
}

func TestSend(t *testing.T) {
	c := newCollector(t)
	if err := Send(t.Context(), ended, c.env(t, map[string]string{
		"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20x, X-Other=y", "OTEL_RESOURCE_ATTRIBUTES": "host.name=node-1",
	})); err != nil {
		t.Fatal(err)
	}
	if r := c.request; r.URL.Path != "/v1/traces" || r.Header.Get("Authorization") != "Bearer x" || r.Header.Get("X-Other") != "y" ||
		r.Header.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("asked %s with %v", r.URL, r.Header)
	}
	text := c.got.String()
	about := c.got.ResourceSpans[0]
	spans := about.ScopeSpans[0].Spans
	if len(spans) != 2 || !strings.Contains(about.Resource.String(), "node-1") || !strings.Contains(about.Resource.String(), service) {
		t.Fatalf("got %s", text)
	}
	in, out := spans[0], spans[1]
	if in.Name != "read artifact" || in.StartTimeUnixNano != 1e9+5 || in.EndTimeUnixNano != 3e9+7 || len(in.TraceId) != 16 || len(in.SpanId) != 8 || in.Status.Code != 0 {
		t.Errorf("got %s", in)
	}
	values := map[string]string{}
	for _, a := range in.Attributes {
		values[a.Key] = strings.TrimSpace(a.Value.String())
	}
	for name, want := range map[string]string{
		"aws.s3.bucket": "bucket", "aws.s3.key": "a/b", "k8s.pod.name": "convert", "container.id": "1", "artifact.name": "in", "artifact.path": "/in/x",
		"artifact.size": "100", "artifact.moved": "64", "artifact.used": "10", "artifact.requests": "2", "artifact.retries": "1", "artifact.hits": "3", "artifact.misses": "4",
	} {
		if !strings.HasSuffix(strings.Trim(values[name], `"`), want) || values[name] == "" {
			t.Errorf("%s is %s, want %s", name, values[name], want)
		}
	}
	if out.Name != "write artifact" || out.Status.Code != trace.Status_STATUS_CODE_ERROR || out.Status.Message != "AccessDenied" || !strings.Contains(out.String(), "out\uFFFD") {
		t.Errorf("got %s", out)
	}
	if string(in.TraceId) == string(out.TraceId) {
		t.Error("both have the same trace")
	}
}

// The settings for traces go before those for all.
func TestSendTraces(t *testing.T) {
	c := newCollector(t)
	env := c.env(t, map[string]string{
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": c.URL + "/own/path", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "A=traces", "OTEL_EXPORTER_OTLP_HEADERS": "A=all",
	})
	if err := Send(t.Context(), ended, env); err != nil || c.request.URL.Path != "/own/path" || c.request.Header.Get("A") != "traces" {
		t.Errorf("%v, asked %v", err, c.request)
	}
}

func TestSendFails(t *testing.T) {
	c := newCollector(t)
	c.status = http.StatusServiceUnavailable
	for _, tc := range []struct{ name, value, want string }{
		{"", "", "send the spans of artifacts to " + c.URL + "/v1/traces: 503 Service Unavailable: \"an answer\""},
		{"OTEL_EXPORTER_OTLP_HEADERS", "secret", "OTEL_EXPORTER_OTLP_HEADERS"},
		{"OTEL_RESOURCE_ATTRIBUTES", "a=%zz", "OTEL_RESOURCE_ATTRIBUTES"},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent", "/nonexistent"},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE", "", "certificate signed by unknown authority"},
		{"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/nonexistent", "/nonexistent"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "unsupported protocol scheme"},
	} {
		if err := Send(t.Context(), ended, c.env(t, map[string]string{tc.name: tc.value})); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s=%s: got %v, want %s", tc.name, tc.value, err, tc.want)
		}
	}
}
