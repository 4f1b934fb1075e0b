package incluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// cluster speaks to the API server with the pod's service account. The three requests
// that are needed do not warrant a client library, which would be most of the image.
type cluster struct {
	server    string
	namespace string
	tokenFile string
	client    *http.Client
}

// requestTimeout bounds one request.
const requestTimeout = 10 * time.Second

func newCluster(server, credentials string) (*cluster, error) {
	authority, err := os.ReadFile(filepath.Join(credentials, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the service account: %w", err)
	}
	namespace, err := os.ReadFile(filepath.Join(credentials, "namespace"))
	if err != nil {
		return nil, fmt.Errorf("read the service account: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("read the service account: %s holds no certificate", filepath.Join(credentials, "ca.crt"))
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	return &cluster{
		server:    strings.TrimSuffix(server, "/"),
		namespace: strings.TrimSpace(string(namespace)),
		tokenFile: filepath.Join(credentials, "token"),
		client:    &http.Client{Transport: transport, Timeout: requestTimeout},
	}, nil
}

// metadata is what of an object is asked for.
type metadata struct {
	Metadata struct {
		UID               string            `json:"uid"`
		Labels            map[string]string `json:"labels"`
		DeletionTimestamp *string           `json:"deletionTimestamp"`
	} `json:"metadata"`
}

// statusError is an answer of the API server other than success.
type statusError struct {
	code    int
	request string
	message string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("API server: %s: %d %s: %s", e.request, e.code, http.StatusText(e.code), e.message)
}

// code returns the HTTP status of an API server's refusal, or 0.
func code(err error) int {
	if status := (*statusError)(nil); errors.As(err, &status) {
		return status.code
	}
	return 0
}

// do makes one request and returns the object's metadata.
func (c *cluster) do(ctx context.Context, method, path string, patch []byte) (metadata, error) {
	var object metadata
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(patch))
	if err != nil {
		return object, err
	}
	token, err := os.ReadFile(c.tokenFile) // each time: the kubelet renews it
	if err != nil {
		return object, fmt.Errorf("read the service account: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	// A node's status can be hundreds of kilobytes.
	request.Header.Set("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
	if patch != nil {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := c.client.Do(request)
	if err != nil {
		return object, fmt.Errorf("API server: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err != nil {
		return object, fmt.Errorf("API server: %s %s: %w", method, path, err)
	}
	if response.StatusCode/100 != 2 {
		var status struct {
			Message string `json:"message"`
		}
		_ = json.Unmarshal(body, &status) // whatever it is, the code counts
		return object, &statusError{response.StatusCode, method + " " + path, status.Message}
	}
	if err := json.Unmarshal(body, &object); err != nil {
		return object, fmt.Errorf("API server: %s %s: %w", method, path, err)
	}
	return object, nil
}

func (c *cluster) getDaemonSet(ctx context.Context, name string) (metadata, error) {
	return c.do(ctx, http.MethodGet, "/apis/apps/v1/namespaces/"+c.namespace+"/daemonsets/"+name, nil)
}

func (c *cluster) daemonSetUID(ctx context.Context, name string) (string, error) {
	object, err := c.getDaemonSet(ctx, name)
	return object.Metadata.UID, err
}

// setLabel gives the node the label, or takes it away, and reports whether that was a
// change. A node that does not exist has no label.
func (c *cluster) setLabel(ctx context.Context, node string, wanted bool) (changed bool, err error) {
	path := "/api/v1/nodes/" + node
	object, err := c.do(ctx, http.MethodGet, path, nil)
	if code(err) == http.StatusNotFound && !wanted {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if value, has := object.Metadata.Labels[Label]; has == wanted && (!wanted || value == "true") {
		return false, nil
	}
	value := "null"
	if wanted {
		value = `"true"`
	}
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, Label, value)
	_, err = c.do(ctx, http.MethodPatch, path, []byte(patch))
	return err == nil, err
}
