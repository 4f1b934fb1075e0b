package testcluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed manifests
var manifests embed.FS

// ArgoNamespaces are the namespaces of one version of Argo. Its controller sees the workflows in Workflows only,
// so that both versions run in one cluster.
type ArgoNamespaces struct {
	Controller string // as in argo-4-0
	Workflows  string // as in wf-4-0
}

// Argo returns the namespaces of a version of Argo, "4.0" or "3.7".
func Argo(version string) ArgoNamespaces {
	name := strings.ReplaceAll(version, ".", "-")
	return ArgoNamespaces{Controller: "argo-" + name, Workflows: "wf-" + name}
}

// ArgoVersions returns the versions of Argo that run in the cluster, as [Argo] takes them, the newest first.
func (c *Cluster) ArgoVersions() []string {
	var versions []string
	for _, name := range c.state.Argo {
		versions = append(versions, strings.TrimPrefix(name, "argo-"))
	}
	return versions
}

// ArgoRelease returns the full version, as in 4.0.2.
func (c *Cluster) ArgoRelease(version string) string { return c.state.Tools["argo-"+version].Version }

// upObjects applies the RuntimeClass and Argo's resource definitions.
func (c *Cluster) upObjects(ctx context.Context) (string, error) {
	runtimeClass, err := os.ReadFile(filepath.Join(c.repo, "deploy", "runtimeclass.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		runtimeClass, err = manifests.ReadFile("manifests/runtimeclass.yaml")
	}
	if err != nil {
		return "", err
	}
	text := runtimeClass
	if len(c.state.Argo) > 0 {
		definitions, err := c.argoDefinitions(ctx)
		if err != nil {
			return "", err
		}
		text = append(append(text, "\n---\n"...), definitions...)
	}
	return c.apply(ctx, "objects", text)
}

// argoDefinitions are the resource definitions of the newest version; the older one works with them too.
func (c *Cluster) argoDefinitions(ctx context.Context) ([]byte, error) {
	name := c.state.Argo[0]
	command := exec.CommandContext(ctx, "go", "list", "-mod=readonly", "-f", "{{with .Module}}{{.Dir}}{{end}}", "github.com/argoproj/argo-workflows/v4/pkg/apis/workflow")
	command.Dir = filepath.Join(c.repo, "hack", "tools", name)
	command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("look for Argo's sources: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(output)), "manifests/base/crds/full/argoproj.io_*.yaml"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no resource definitions below %s", strings.TrimSpace(string(output)))
	}
	var all [][]byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return bytes.Join(all, []byte("\n---\n")), nil
}

// apply applies manifests unless they are the same as before. It is a server-side apply: Argo's definitions are
// larger than the annotation that a client-side apply would keep.
func (c *Cluster) apply(ctx context.Context, step string, text []byte) (string, error) {
	sum := sha256.Sum256(text)
	key := hex.EncodeToString(sum[:8])
	if c.done("apply "+step, key) {
		return "there already", nil
	}
	if _, err := c.KubectlWith(ctx, bytes.NewReader(text), "apply", "--server-side", "--force-conflicts", "-f", "-"); err != nil {
		return "", err
	}
	return "applied", c.setDone("apply "+step, key)
}

func (c *Cluster) upArgo(ctx context.Context, name string) (string, error) {
	version := strings.TrimPrefix(name, "argo-")
	text, err := c.ArgoManifest(version, Argo(version))
	if err != nil {
		return "", err
	}
	if _, err := c.apply(ctx, name, text); err != nil {
		return "", err
	}
	namespace := Argo(version).Controller
	_, err = c.Kubectl(ctx, "-n", namespace, "rollout", "status", "deployment/workflow-controller", "--timeout", readyWithin.String())
	if err != nil {
		state, _ := c.Kubectl(ctx, "-n", namespace, "describe", "pods")
		return "", fmt.Errorf("%w\n%s", err, state)
	}
	return fmt.Sprintf("%s in %s", c.state.Tools[name].Version, namespace), nil
}

// ArgoManifest returns the manifest that installs a version of Argo, one that runs in the cluster, into the given
// namespaces, for a server-side apply. Both namespaces may be the same.
func (c *Cluster) ArgoManifest(version string, in ArgoNamespaces) ([]byte, error) {
	manifest, err := template.ParseFS(manifests, "manifests/argo.yaml")
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = manifest.Execute(&text, map[string]any{
		"Argo":       in,
		"Controller": c.argoImage("argo-"+version, "workflow-controller"),
		"Executor":   c.argoImage("argo-"+version, "argoexec"),
		"S3":         c.S3(),
		"Requeue":    c.state.Requeue,
	})
	return text.Bytes(), err
}
