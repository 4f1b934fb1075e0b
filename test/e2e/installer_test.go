package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testsystemd"
)

// Names that deploy/node-installer uses.
const (
	installerNamespace = "wasm-shim"
	installerName      = "node-installer"
	installerImage     = "localhost/wasm-shim/node-installer"
	shimOnNode         = "/usr/local/bin/containerd-shim-wasm-v1"
)

// TestInstaller takes the installer's DaemonSet of deploy/ through its whole life on a node that has no shim: it is
// installed, used, upgraded under a running pod, and removed with nothing left. It runs alone: it restarts
// containerd.
func TestInstaller(t *testing.T) {
	node := bareNode(t)
	systemd := serveSystemd(t)
	binaries := installerBinaries(t)
	importInstaller(t, "devel", binaries)
	before := filesOnNode(t)

	applyInstaller(t)
	rollOut(t)
	if got := labelOf(t, node); got != "true" {
		t.Errorf("the label is %q", got)
	}
	if got := systemd.Restarts(); got != 1 {
		t.Errorf("containerd was restarted %d times", got)
	}
	s := newSpace(t)
	hello := asWasm.pod(t)
	hello.Spec.Containers[0].Image = helloImage
	s.succeeds(t, hello, "hello from C\n")

	t.Run("rights", func(t *testing.T) { installerRights(t, node) })

	// The upgrade does not affect running pods. The next pod of the same version does not either.
	long := s.start(t, asWasm.pod(t, "loop"))
	upgraded := maps.Clone(binaries)
	upgraded["/containerd-shim-wasm-v1"] = longer(t, binaries["/containerd-shim-wasm-v1"])
	importInstaller(t, "devel2", upgraded)
	installed := readOnNode(t, shimOnNode)
	kubectl(t, "-n", installerNamespace, "set", "image", "daemonset/"+installerName, "installer="+installerImage+":devel2")
	rollOut(t)
	if now := readOnNode(t, shimOnNode); len(now) != len(installed)+len(trailer) {
		t.Errorf("the shim has %d bytes, and had %d", len(now), len(installed))
	}
	if got := systemd.Restarts(); got != 1 {
		t.Errorf("containerd was restarted %d times", got)
	}
	if now := s.ready(t, long.Name); containerStatus(t, now, "main").ContainerID != containerStatus(t, long, "main").ContainerID {
		t.Error("the running container is another one")
	}

	// A removal removes the label first, then waits for the pod.
	kubectl(t, "-n", installerNamespace, "delete", "daemonset", installerName)
	await(t, "", node, "has lost its label", func(n *corev1.Node) bool { return n.Labels[testcluster.RuntimeLabel] == "" })
	if readOnNode(t, shimOnNode) == nil {
		t.Error("the shim is gone before its pod")
	}
	if err := kube.typed.CoreV1().Pods(s.name).Delete(t.Context(), long.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", installerNamespace, "wait", "pod", "--all", "--for=delete", "--timeout", within.String())
	sameFilesOnNode(t, before)
	if got := systemd.Restarts(); got != 2 {
		t.Errorf("containerd was restarted %d times", got)
	}
}

func kubectl(t testing.TB, args ...string) string {
	t.Helper()
	text, err := cluster.Kubectl(context.WithoutCancel(t.Context()), args...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// bareNode removes the shim from the cluster's node and restores it at the end of the test. It returns the node's
// name.
func bareNode(t *testing.T) string {
	t.Helper()
	nodes, err := kube.typed.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 1 {
		t.Fatalf("%d nodes, %v", len(nodes.Items), err)
	}
	node := nodes.Items[0].Name
	t.Cleanup(func() {
		up, err := testcluster.Up(context.WithoutCancel(t.Context()), testcluster.Options{}, t.Output())
		if err != nil {
			t.Fatalf("putting the shim back: %v", err)
		}
		cluster = up // the new value has the containerd that was restarted
		setLabel(t, node, `"true"`)
	})
	setLabel(t, node, "null")
	// The removal is refused while pods of an earlier test are still being torn down.
	eventually(t, "the shim is removed", func(ctx context.Context) error {
		return onNodeCommand(ctx, shimOnNode, "uninstall", "--containerd", "/usr/local/bin/containerd")
	})
	// The cluster's own settings in the configuration keep it from being removed.
	for _, dir := range []string{"/var/lib/containerd-shim-wasm", "/etc/containerd-shim-wasm"} {
		if err := os.RemoveAll(cluster.OnNode(dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := cluster.Restart(t.Context(), testcluster.Containerd); err != nil {
		t.Fatal(err)
	}
	return node
}

func setLabel(t *testing.T, node, value string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, testcluster.RuntimeLabel, value)
	_, err := kube.typed.CoreV1().Nodes().Patch(context.WithoutCancel(t.Context()), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func labelOf(t *testing.T, node string) string {
	t.Helper()
	n, err := kube.typed.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n.Labels[testcluster.RuntimeLabel]
}

// onNodeCommand runs a command of the node on the node.
func onNodeCommand(ctx context.Context, path string, args ...string) error {
	command := cluster.NodeCommand(ctx, path, args...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := cluster.RunOnNode(command); err != nil {
		return fmt.Errorf("%s: %w\n%s", path, err, &output)
	}
	return nil
}

// serveSystemd provides a stand-in for systemd on the node, which has none.
func serveSystemd(t *testing.T) *testsystemd.Server {
	t.Helper()
	socket := cluster.OnNode("/run/systemd/private")
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	server, err := testsystemd.Serve(socket, "containerd.service", func(ctx context.Context) error {
		return cluster.Restart(ctx, testcluster.Containerd)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(filepath.Dir(socket)); err != nil {
			t.Error(err)
		}
	})
	return server
}

// installerBinaries builds the installer and returns the files of its image: path in the image → file.
func installerBinaries(t *testing.T) map[string]string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "wasm-node-installer")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program,
		"github.com/wasmshim/containerd-shim-wasm/cmd/wasm-node-installer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return map[string]string{"/wasm-node-installer": program, "/containerd-shim-wasm-v1": filepath.Join("../..", "bin", "containerd-shim-wasm-v1")}
}

func importInstaller(t *testing.T, tag string, files map[string]string) {
	t.Helper()
	err := cluster.ImportImage(t.Context(), installerImage+":"+tag, testguest.ImageOpts{Files: files, Entrypoint: []string{"/wasm-node-installer"}})
	if err != nil {
		t.Fatal(err)
	}
}

// trailer makes a different binary from one that works.
const trailer = "another version"

func longer(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(t.TempDir(), "changed")
	if err := os.WriteFile(changed, append(content, trailer...), 0o755); err != nil {
		t.Fatal(err)
	}
	return changed
}

// applyInstaller applies deploy/ unchanged. At the end of the test it deletes everything but the RuntimeClass, which
// the cluster itself has.
func applyInstaller(t *testing.T) {
	t.Helper()
	kubectl(t, "apply", "--server-side", "-k", "../../deploy")
	t.Cleanup(func() {
		if t.Failed() {
			log, err := cluster.Kubectl(context.WithoutCancel(t.Context()), "-n", installerNamespace, "logs", "daemonset/"+installerName)
			t.Logf("the installer's log (%v):\n%s", err, log)
		}
		kubectl(t, "delete", "-k", "../../deploy/node-installer", "--ignore-not-found", "--timeout", within.String())
	})
}

// The overlay for k3s still matches the files that it changes, and the API server would accept the result.
func TestInstallerOverlay(t *testing.T) {
	set := kubectl(t, "kustomize", "../../deploy/overlays/k3s")
	for _, want := range []string{"--restart=systemd:k3s.service", "path: /run/k3s/containerd", "mountPath: /run/k3s/containerd"} {
		if !strings.Contains(set, want) {
			t.Errorf("no %q in\n%s", want, set)
		}
	}
	for _, gone := range []string{"path: /run/containerd", "mountPath: /etc/containerd\n"} {
		if strings.Contains(set, gone) {
			t.Errorf("%q is left in\n%s", gone, set)
		}
	}
	const namespace = "../../deploy/node-installer/namespace.yaml"
	kubectl(t, "apply", "-f", namespace)
	t.Cleanup(func() { kubectl(t, "delete", "-f", namespace, "--timeout", within.String()) })
	kubectl(t, "apply", "--dry-run=server", "-k", "../../deploy/overlays/k3s")
}

// The overlay that docs/kubernetes.md shows pulls the installer from a registry.
func TestInstallerFromRegistry(t *testing.T) {
	overlay := strings.Join(commandsOf(t, "docs/kubernetes.md", "## Install")[1], "\n")
	dir, here := t.TempDir(), newTypist(t).dir
	deploy, err := filepath.Rel(dir, filepath.Join(here, "deploy"))
	if err != nil {
		t.Fatal(err)
	}
	const upstream = "github.com/wasmshim/containerd-shim-wasm/deploy"
	if !strings.Contains(overlay, upstream) {
		t.Fatalf("the overlay has no %s:\n%s", upstream, overlay)
	}
	overlay = strings.ReplaceAll(overlay, upstream, deploy)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(overlay), 0o644); err != nil {
		t.Fatal(err)
	}
	if set := kubectl(t, "kustomize", dir); !strings.Contains(set, "image: registry.example.com/wasm-shim/node-installer:v1\n") {
		t.Errorf("the image is not the registry's in\n%s", set)
	}
}

// rollOut waits until the DaemonSet's pods have its newest version and are ready.
func rollOut(t *testing.T) {
	t.Helper()
	await(t, installerNamespace, installerName, "is rolled out", func(d *appsv1.DaemonSet) bool {
		return d.Status.ObservedGeneration == d.Generation && d.Status.DesiredNumberScheduled == 1 &&
			d.Status.UpdatedNumberScheduled == 1 && d.Status.NumberReady == 1
	})
}

// sameFilesOnNode checks that the files are the same as before.
func sameFilesOnNode(t *testing.T, before map[string]string) {
	t.Helper()
	after := filesOnNode(t)
	if maps.Equal(before, after) {
		return
	}
	for _, path := range slices.Sorted(maps.Keys(after)) {
		if before[path] != after[path] {
			t.Errorf("%s is new or differs", path)
		}
	}
	t.Errorf("there were %q", slices.Sorted(maps.Keys(before)))
}

// filesOnNode returns all files that the installer may write and all of /etc, by path: mode and content.
func filesOnNode(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, dir := range []string{"/usr/local/bin", "/etc", "/var/lib/containerd-shim-wasm"} {
		root := cluster.OnNode(dir)
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			// The folder above a mount is created for the mount, and stays.
			if err != nil && os.IsNotExist(err) {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			name := dir + strings.TrimPrefix(path, root)
			if dir != "/usr/local/bin" || name == shimOnNode {
				content, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				files[name] = string(content)
			}
			files[name] += info.Mode().String()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func readOnNode(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(cluster.OnNode(path))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return content
}

// installerRights shows what the token of the installer's pod permits and what it does not.
func installerRights(t *testing.T, node string) {
	pods, err := kube.typed.CoreV1().Pods(installerNamespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	pod := pods.Items[0]
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	request, err = kube.typed.CoreV1().ServiceAccounts(installerNamespace).CreateToken(t.Context(), installerName, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(cluster.RESTConfig())
	config.BearerToken, config.Dial = request.Status.Token, cluster.Dial
	installer, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	const other = "not-the-installers"
	create(t, "", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: other}})
	t.Cleanup(func() {
		if err := kube.typed.CoreV1().Nodes().Delete(context.WithoutCancel(t.Context()), other, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	patch := func(node, text string) error {
		_, err := installer.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, []byte(text), metav1.PatchOptions{})
		return err
	}
	const label = `{"metadata":{"labels":{"wasm.shim/runtime":"true"}}}`
	if err := patch(node, label); err != nil {
		t.Errorf("its own label: %v", err)
	}
	for name, err := range map[string]error{
		"another node":        patch(other, label),
		"another label":       patch(node, `{"metadata":{"labels":{"kubernetes.io/os":"windows"}}}`),
		"a label's removal":   patch(node, `{"metadata":{"labels":{"kubernetes.io/os":null}}}`),
		"a taint":             patch(node, `{"spec":{"taints":[{"key":"a","effect":"NoExecute"}]}}`),
		"an annotation":       patch(node, `{"metadata":{"annotations":{"a":"b"}}}`),
		"secrets":             second(installer.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{})),
		"other DaemonSets":    second(installer.AppsV1().DaemonSets("kube-system").Get(t.Context(), installerName, metav1.GetOptions{})),
		"its own DaemonSet":   second(installer.AppsV1().DaemonSets(installerNamespace).Patch(t.Context(), installerName, types.MergePatchType, []byte(`{}`), metav1.PatchOptions{})),
		"the list of nodes":   second(installer.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})),
		"the node's deletion": installer.CoreV1().Nodes().Delete(t.Context(), other, metav1.DeleteOptions{}),
	} {
		if !apierrors.IsForbidden(err) && !apierrors.IsInvalid(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
