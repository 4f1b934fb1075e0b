// Package taskresult speaks to the Kubernetes API server about one WorkflowTaskResult, the object in which
// Argo's executor reports what became of a step. It makes the requests that upstream's executor makes
// (workflow/executor/taskresult.go, by client-go) and tries again after the errors after which that does.
//
// It reads no other object, sends its token to no other host, and follows no redirect.
package taskresult

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config says where the API server is, and with which credentials to ask it.
type Config struct {
	Host      string // https://HOST:PORT
	CAFile    string
	TokenFile string // read for each request: the kubelet replaces a token before it expires
	Namespace string
	UserAgent string
}

// account is the folder of a container's service account (client-go's rest.InClusterConfig).
const account = "/var/run/secrets/kubernetes.io/serviceaccount"

// InCluster returns the configuration of a pod whose files are below root.
func InCluster(getenv func(string) string, root string) (Config, error) {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return Config{}, errors.New("unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined")
	}
	dir := filepath.Join(root, account)
	namespace, err := readSmall(filepath.Join(dir, "namespace"))
	if err != nil {
		return Config{}, fmt.Errorf("read the namespace of the pod: %w", err)
	}
	return Config{
		Host: "https://" + net.JoinHostPort(host, port), CAFile: filepath.Join(dir, "ca.crt"), TokenFile: filepath.Join(dir, "token"),
		Namespace: strings.TrimSpace(namespace),
	}, nil
}

// maxAccountFile bounds a file of the service account, in bytes.
const maxAccountFile = 1 << 20

func readSmall(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxAccountFile {
		return "", fmt.Errorf("%s is no regular file of at most %d bytes", path, maxAccountFile)
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

// Of names the object and the workflow that owns it.
type Of struct{ Node, Workflow, WorkflowUID, InstanceID string }

// Result is what is reported.
type Result struct {
	Outputs  json.RawMessage // upstream's Outputs, nil for none
	Progress string          // N/M, empty for none
}

// Client reports on one object. Its methods must not be called at the same time.
type Client struct {
	config  Config
	of      Of
	log     *slog.Logger
	http    *http.Client
	created bool
}

// New returns a client. It makes no request.
func New(c Config, of Of, log *slog.Logger) (*Client, error) {
	pem, err := readSmall(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the API server's authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		return nil, fmt.Errorf("%s holds no certificate", c.CAFile)
	}
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		DialContext:         (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		// A wait container asks twice, with the step between: a connection that is kept would only be memory
		// here and at the API server.
		IdleConnTimeout: 5 * time.Second,
	}
	return &Client{config: c, of: of, log: log, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Report creates the object with a result, or changes it. It tries again after a transient error until ctx ends.
func (c *Client) Report(ctx context.Context, r Result) error {
	return c.retry(ctx, 0.2, func() error { return c.upsert(ctx, r) })
}

// Complete sets the label that tells the controller that nothing more is reported. It tries again as Report does.
func (c *Client) Complete(ctx context.Context) error {
	labels := map[string]any{"metadata": map[string]any{"labels": map[string]string{labelCompleted: "true"}}}
	return c.retry(ctx, 0.1, func() error { return c.patch(ctx, labels) })
}

const (
	group          = "argoproj.io"
	version        = "v1alpha1"
	resource       = "workflowtaskresults"
	labelWorkflow  = "workflows.argoproj.io/workflow"
	labelCompleted = "workflows.argoproj.io/report-outputs-completed"
	labelInstance  = "workflows.argoproj.io/controller-instanceid"
)

func (c *Client) upsert(ctx context.Context, r Result) error {
	if !c.created {
		err := c.create(ctx, r)
		if !hasReason(err, "AlreadyExists", 0) {
			return err
		}
		return c.patch(ctx, r.fields())
	}
	err := c.patch(ctx, r.fields())
	if hasReason(err, "NotFound", http.StatusNotFound) {
		return c.create(ctx, r)
	}
	return err
}

func (r Result) fields() map[string]any {
	fields := map[string]any{}
	if r.Outputs != nil {
		fields["outputs"] = r.Outputs
	}
	if r.Progress != "" {
		fields["progress"] = r.Progress
	}
	return fields
}

func (c *Client) create(ctx context.Context, r Result) error {
	labels := map[string]string{labelWorkflow: c.of.Workflow, labelCompleted: "false"}
	if c.of.InstanceID != "" {
		labels[labelInstance] = c.of.InstanceID
	}
	object := r.fields()
	object["apiVersion"], object["kind"] = group+"/"+version, "WorkflowTaskResult"
	object["metadata"] = map[string]any{
		"name": c.of.Node, "labels": labels,
		"ownerReferences": []map[string]string{{
			"apiVersion": group + "/" + version, "kind": "Workflow", "name": c.of.Workflow, "uid": c.of.WorkflowUID,
		}},
	}
	err := c.send(ctx, http.MethodPost, c.path(), "application/json", object)
	c.created = err == nil || hasReason(err, "AlreadyExists", 0)
	return err
}

func (c *Client) patch(ctx context.Context, change map[string]any) error {
	return c.send(ctx, http.MethodPatch, c.path()+"/"+url.PathEscape(c.of.Node), "application/merge-patch+json", change)
}

func (c *Client) path() string {
	return "/apis/" + group + "/" + version + "/namespaces/" + url.PathEscape(c.config.Namespace) + "/" + resource
}
