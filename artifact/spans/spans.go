// Package spans tells an OpenTelemetry collector what was read and written of the artifacts of a container, one span for
// each. It sends OTLP over HTTP, as far as that takes no more than one request, with its messages but without the library
// around them: that would make each start of the program longer.
package spans

import (
	"crypto/rand"
	"strings"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
)

// service is the name of the resource that the spans are of.
const service = "containerd-shim-wasm"

// of returns the spans of a container. More attributes of the resource come from the operator.
func of(c ask.Traced, about map[string]string) *trace.TracesData {
	resourceOf := &resource.Resource{Attributes: texts(about, [2]string{"service.name", service})}
	scope := &trace.ScopeSpans{Scope: &common.InstrumentationScope{Name: "github.com/wasmshim/containerd-shim-wasm/artifact"}}
	for _, a := range c.Artifacts {
		scope.Spans = append(scope.Spans, span(c, a))
	}
	return &trace.TracesData{ResourceSpans: []*trace.ResourceSpans{{Resource: resourceOf, ScopeSpans: []*trace.ScopeSpans{scope}}}}
}

// span returns the span of an artifact, a trace of its own.
func span(c ask.Traced, a progress.Artifact) *trace.Span {
	s := &trace.Span{
		TraceId: random(16), SpanId: random(8), Name: "read artifact", Kind: trace.Span_SPAN_KIND_CLIENT,
		StartTimeUnixNano: uint64(c.Began.UnixNano()), EndTimeUnixNano: uint64(c.Ended.UnixNano()), Status: &trace.Status{},
	}
	if a.Output {
		s.Name = "write artifact"
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(a.Object, "s3://"), "/")
	s.Attributes = texts(nil, [][2]string{
		{"k8s.namespace.name", c.Namespace}, {"k8s.pod.name", c.Pod}, {"k8s.container.name", c.Container}, {"container.id", c.ID},
		{"aws.s3.bucket", bucket}, {"aws.s3.key", key},
		{"artifact.name", a.Name}, {"artifact.path", a.Path}, {"artifact.state", a.State},
	}...)
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"size", a.Size}, {"moved", a.Moved}, {"used", a.Used}, {"requests", a.Requests}, {"retries", a.Retries}, {"hits", a.Hits}, {"misses", a.Misses},
	} {
		s.Attributes = append(s.Attributes, &common.KeyValue{Key: "artifact." + n.name, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: n.value}}})
	}
	if reason, failed := strings.CutPrefix(a.State, progress.Failed); failed {
		s.Status = &trace.Status{Code: trace.Status_STATUS_CODE_ERROR, Message: valid(reason)}
	}
	return s
}

// texts returns attributes, without empty ones. Names of others must not make the message invalid.
func texts(more map[string]string, all ...[2]string) []*common.KeyValue {
	var list []*common.KeyValue
	add := func(key, value string) {
		if value != "" {
			list = append(list, &common.KeyValue{Key: valid(key), Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: valid(value)}}})
		}
	}
	for _, pair := range all {
		add(pair[0], pair[1])
	}
	for key, value := range more {
		add(key, value)
	}
	return list
}

func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func random(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.Read(p) // never fails
	return p
}
