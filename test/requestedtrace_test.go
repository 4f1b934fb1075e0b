package test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// spanCollector is an OpenTelemetry collector, which keeps the spans of artifacts.
type spanCollector struct {
	*httptest.Server

	mu    sync.Mutex
	spans map[string]string // by their names
}

func collectSpans(t *testing.T) *spanCollector {
	c := &spanCollector{spans: map[string]string{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var got trace.TracesData
		if body, err := io.ReadAll(r.Body); err != nil || proto.Unmarshal(body, &got) != nil {
			return // containerd sends to it, too
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, of := range got.ResourceSpans {
			for _, scope := range of.ScopeSpans {
				for _, s := range scope.Spans {
					if strings.HasSuffix(s.Name, " artifact") {
						c.spans[s.Name] = s.String()
					}
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// find returns the span with a name, "" if it has not come.
func (c *spanCollector) find(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spans[name]
}

// If OpenTelemetry is configured for containerd, each artifact that was served is a span.
func TestArtifactsAreTraced(t *testing.T) {
	for _, version := range testnode.Versions() {
		t.Run(version, func(t *testing.T) {
			collector := collectSpans(t)
			node := testnode.New(t, testnode.Options{Version: version, Env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL}})
			importTaskImages(t, node)
			importArgoImages(t, node)
			node.NoLeaks(t)
			p := newRequestingPod(t, node, map[string]string{"bucket/data.csv": lazyData, "results/old": "old"})
			p.run(0, map[string]string{"in": "s3://bucket/data.csv -> /in/file", "result": "/out/copy -> s3://results/copy"}, []string{"copy", "/in/file", "/out/copy"})
			for name, parts := range map[string][]string{
				"read artifact":  {`"data.csv"`, `"in"`, "int_value:4194304", `"team"`, `"main"`},
				"write artifact": {`"results"`, `"copy"`, `"stored"`, "int_value:4194304"},
			} {
				var span string
				if !eventually(func() bool { span = collector.find(name); return span != "" }) {
					t.Fatalf("there is no span %q", name)
				}
				span = strings.ReplaceAll(span, ": ", ":")
				for _, want := range parts {
					if !strings.Contains(span, want) {
						t.Errorf("%s has no %s: %s", name, want, span)
					}
				}
			}
		})
	}
}
