package shim

import (
	"slices"
	"testing"
)

func TestTracing(t *testing.T) {
	const at = "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318"
	for _, tc := range []struct {
		env  []string
		want bool
	}{
		{nil, false},
		{[]string{"OTEL_EXPORTER_OTLP_ENDPOINT="}, false},
		{[]string{at}, true},
		{[]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://collector/x"}, true},
		{[]string{at, "OTEL_SDK_DISABLED=true"}, false},
		{[]string{at, "OTEL_TRACES_EXPORTER=none"}, false},
		{[]string{at, "OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"}, true},
		{[]string{at, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, false},
		{[]string{at, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf"}, true},
	} {
		got := tracing(append([]string{"PATH=/bin", "AWS_SECRET_ACCESS_KEY=x"}, tc.env...))
		if tc.want && !slices.Equal(got, tc.env) || !tc.want && got != nil {
			t.Errorf("%v: got %v", tc.env, got)
		}
	}
}
