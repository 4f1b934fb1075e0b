package spans

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wasmshim/containerd-shim-wasm/oci/ask"
)

// limit is how long the collector may take.
const limit = 10 * time.Second

// Send sends the spans of a container to the collector that the usual variables of OpenTelemetry name.
func Send(ctx context.Context, c ask.Traced, getenv func(string) string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	env := environment(getenv)
	at := env.endpoint()
	if err := env.send(ctx, at, c); err != nil {
		return fmt.Errorf("send the spans of artifacts to %s: %w", at, err)
	}
	return nil
}

// environment has the variables of the specification ("OpenTelemetry Protocol Exporter").
type environment func(string) string

// get returns the setting for traces, or for all that is exported.
func (get environment) get(name string) string {
	if value := get("OTEL_EXPORTER_OTLP_TRACES_" + name); value != "" {
		return value
	}
	return get("OTEL_EXPORTER_OTLP_" + name)
}

func (get environment) endpoint() string {
	if at := get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"); at != "" {
		return at
	}
	return strings.TrimSuffix(get("OTEL_EXPORTER_OTLP_ENDPOINT"), "/") + "/v1/traces"
}

func (get environment) send(ctx context.Context, at string, c ask.Traced) error {
	about, err := pairs(get("OTEL_RESOURCE_ATTRIBUTES"))
	if err != nil {
		return fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	headers, err := pairs(get.get("HEADERS"))
	if err != nil {
		return fmt.Errorf("OTEL_EXPORTER_OTLP_HEADERS: %w", err)
	}
	body, err := proto.Marshal(of(c, about))
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	security, err := get.security()
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: security}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode/100 == 2 {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	return fmt.Errorf("%s: %q", response.Status, text)
}

// security returns whom to trust, and who we are.
func (get environment) security() (*tls.Config, error) {
	settings := &tls.Config{}
	if name := get.get("CERTIFICATE"); name != "" {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate", name)
		}
	}
	if name := get.get("CLIENT_CERTIFICATE"); name != "" {
		own, err := tls.LoadX509KeyPair(name, get.get("CLIENT_KEY"))
		if err != nil {
			return nil, err
		}
		settings.Certificates = []tls.Certificate{own}
	}
	return settings, nil
}

// pairs reads a list NAME=VALUE,… whose values are encoded as in a URL.
func pairs(list string) (map[string]string, error) {
	all := map[string]string{}
	for pair := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, fmt.Errorf("%.100q is not NAME=VALUE", strings.TrimSpace(pair))
		}
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("the value of %.100q: %w", name, err)
		}
		all[strings.TrimSpace(name)] = value
	}
	return all, nil
}
