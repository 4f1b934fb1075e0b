package shim

import (
	"bytes"
	"cmp"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
)

// trace hands to OpenTelemetry what a program has done for artifacts of the container, if the operator has configured that
// for containerd. It does not wait for the collector.
func (c *container) trace(p *process) {
	env := tracing(os.Environ())
	if env == nil {
		return
	}
	lost := func(err error) {
		if err != nil {
			c.daemon.log.WithError(err).WithField("container", c.id).Warn("trace the container's artifacts: their spans are lost")
		}
	}
	done, err := progress.Read(p.progress)
	if err != nil || len(done) == 0 {
		lost(err)
		return
	}
	of := c.artifactsOf()
	var text bytes.Buffer
	if err := ask.WriteTraced(&text, ask.Traced{
		Namespace: of.Namespace, Pod: of.Pod, Container: of.Container, ID: c.id, Began: p.made, Ended: time.Now(), Artifacts: done,
	}); err != nil {
		lost(err)
		return
	}
	file, err := memfile(text.Bytes())
	if err != nil {
		lost(err)
		return
	}
	defer file.Close()
	lost(c.daemon.loader.Trace(file, env, lost))
}

// tracing returns the variables of OpenTelemetry, nil unless they name a collector of traces that speaks OTLP over HTTP.
func tracing(env []string) []string {
	set := map[string]string{}
	env = slices.DeleteFunc(slices.Clone(env), func(pair string) bool {
		name, value, _ := strings.Cut(pair, "=")
		set[name] = value
		return !strings.HasPrefix(name, "OTEL_")
	})
	switch {
	case cmp.Or(set["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"], set["OTEL_EXPORTER_OTLP_ENDPOINT"]) == "":
		return nil
	case strings.EqualFold(set["OTEL_SDK_DISABLED"], "true"):
		return nil
	case !slices.Contains([]string{"", "otlp"}, set["OTEL_TRACES_EXPORTER"]):
		return nil
	case !slices.Contains([]string{"", "http/protobuf"}, cmp.Or(set["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"], set["OTEL_EXPORTER_OTLP_PROTOCOL"])):
		return nil
	}
	return env
}
