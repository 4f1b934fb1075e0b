package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
)

// TestReadme types the commands of the README that lead from a cluster to the first Wasm workflow, unchanged and in
// their order, on a cluster that has Argo and no support for Wasm. Then it types the commands of docs/kubernetes.md
// that remove everything. [typist] lists the differences from an operator's environment.
// TestReadme runs alone: it restarts containerd.
func TestReadme(t *testing.T) {
	install := commandsOf(t, "README.md", "## From a cluster to the first Wasm workflow")[0]
	if len(install) != 5 {
		t.Errorf("the README speaks of five commands and has %q", install)
	}
	for _, command := range commandsOf(t, "docs/kubernetes.md", "## Install")[0] {
		if strings.HasPrefix(command, "kubectl ") && !slices.Contains(install, command) {
			t.Errorf("docs/kubernetes.md has %q, and the README has not", command)
		}
	}
	removal := commandsOf(t, "docs/kubernetes.md", "## Removal")[0]
	bareNode(t)
	systemd := serveSystemd(t)
	withoutRuntimeClass(t)
	withoutImages(t, "localhost/wasm-")
	a := installArgo(t, "argo")
	before := filesOnNode(t)

	operator := newTypist(t)
	var printed string
	for _, command := range install {
		if strings.Contains(command, "# on each node") {
			printed = operator.onNode(t, command)
		} else {
			printed = operator.onMachine(t, command)
		}
	}
	submitted := regexp.MustCompile(`^workflow\.argoproj\.io/(\S+) created\n$`).FindStringSubmatch(printed)
	if submitted == nil {
		t.Fatalf("the last command printed %q", printed)
	}
	object := &anyObject{}
	object.SetName(submitted[1])
	w := workflow{object, a}.ended(t).is(t, "Succeeded")
	exampleChecks["hello.yaml"](t, w)
	if class := a.pod(t, w, "").Spec.RuntimeClassName; class == nil || *class != "wasm" {
		t.Errorf("the pod's runtime class is %v", class)
	}
	if got := systemd.Restarts(); got != 1 {
		t.Errorf("containerd was restarted %d times", got)
	}

	a.removeWorkflows(t)
	for _, command := range removal {
		operator.onMachine(t, command)
	}
	sameFilesOnNode(t, before)
	if got := systemd.Restarts(); got != 2 {
		t.Errorf("containerd was restarted %d times", got)
	}
}

// TestReadmeNode types the commands of the README that install the shim on a node alone and run a module of the
// reader's own there, then the commands of other pages that inspect a node and its cache, then those that remove the
// shim.
// TestReadmeNode runs alone: it restarts containerd.
func TestReadmeNode(t *testing.T) {
	bareNode(t)
	before := filesOnNode(t)
	operator := newTypist(t)
	for _, command := range commandsOf(t, "README.md", "## Install it on a node")[0] {
		if strings.HasPrefix(command, "make ") {
			operator.onMachine(t, command)
		} else {
			operator.onNode(t, command)
		}
	}

	own := commandsOf(t, "README.md", "## Run your own `.wasm`")
	if len(own) != 2 || len(own[0]) != 3 {
		t.Fatalf("the README has %q", own)
	}
	// Debian's Rust has only the target wasm32-wasi, and comes without cargo.
	for language, command := range map[string]string{"Go": own[0][0], "C": own[0][2]} {
		author := newTypist(t)
		author.dir = sourcesOf(t, language)
		author.onMachine(t, command)
		var printed string
		for _, command := range own[1] {
			printed = author.onNode(t, command)
		}
		equal(t, "what the container printed", printed, "hello from "+language+"\n")
	}
	t.Cleanup(func() {
		if err := onNodeCommand(context.WithoutCancel(t.Context()), "/usr/local/bin/ctr", "images", "rm", "--sync", "docker.io/library/app:latest"); err != nil {
			t.Error(err)
		}
	})

	for _, command := range commandsOf(t, "docs/cache.md", "## Looking and cleaning up")[0] {
		operator.onNode(t, command)
	}
	warm := commandsOf(t, "docs/cache.md", "## Compiling ahead of time")[0][0]
	operator.onNode(t, strings.NewReplacer("k8s.io", "default", "IMAGE", "docker.io/library/app:latest").Replace(warm))
	if got := operator.onNode(t, "containerd-shim-wasm-v1 cache ls"); !strings.Contains(got, "default/docker.io/library/app:latest") {
		t.Errorf("the cache has no entry of the image:\n%s", got)
	}
	for _, command := range commandsOf(t, "docs/install.md", "## Checking a node")[0] {
		operator.onNode(t, command)
	}

	for _, command := range commandsOf(t, "docs/install.md", "## Removing")[0] {
		operator.onNode(t, command)
	}
	// The page says that these files stay and may be deleted.
	if err := os.RemoveAll(cluster.OnNode("/var/lib/containerd-shim-wasm")); err != nil {
		t.Fatal(err)
	}
	sameFilesOnNode(t, before)
}

// sourcesOf makes a folder with a program of that language that prints a greeting, as its author would have it.
func sourcesOf(t *testing.T, language string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]map[string]string{
		"Go": {"go.mod": "module app\n", "main.go": "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"hello from Go\") }\n"},
		"C":  {"app.c": "#include <stdio.h>\n\nint main(void) { puts(\"hello from C\"); }\n"},
	}[language]
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// withoutRuntimeClass deletes the RuntimeClass that the cluster has for other tests. At the end of the test it
// restores the RuntimeClass and deletes everything else of deploy.
func withoutRuntimeClass(t *testing.T) {
	t.Helper()
	kubectl(t, "delete", "runtimeclass", "wasm")
	t.Cleanup(func() {
		if t.Failed() {
			log, err := cluster.Kubectl(context.WithoutCancel(t.Context()), "-n", installerNamespace, "logs", "daemonset/"+installerName)
			t.Logf("the installer's log (%v):\n%s", err, log)
		}
		kubectl(t, "delete", "-k", "../../deploy", "--ignore-not-found", "--timeout", within.String())
		kubectl(t, "apply", "--server-side", "-f", "../../deploy/runtimeclass.yaml")
	})
}

// withoutImages removes other tests' images with that name prefix, and this test's images at its end. Tests that run
// later import theirs themselves.
func withoutImages(t *testing.T, prefix string) {
	t.Helper()
	remove := func() {
		connection, err := grpc.NewClient("unix://"+cluster.OnNode("/run/containerd/containerd.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within)
		defer cancel()
		images := cri.NewImageServiceClient(connection)
		var list *cri.ListImagesResponse
		// A containerd that was just started refuses CRI requests until CRI is initialized.
		err = poll.Until(ctx, func() (bool, error) {
			list, err = images.ListImages(ctx, &cri.ListImagesRequest{})
			if grpcstatus.Code(err) == codes.Unavailable {
				return false, nil
			}
			return true, err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, image := range list.Images {
			if !strings.Contains(fmt.Sprint(" ", image.RepoTags), prefix) {
				continue
			}
			if _, err := images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: image.Id}}); err != nil {
				t.Error(err)
			}
		}
	}
	remove()
	t.Cleanup(remove)
}

// installArgo installs the newest Argo into a namespace of its own, and it sees only the workflows of that namespace.
// The controllers of the tests' other Argos do not see them. It is removed at the end of the test.
func installArgo(t *testing.T, namespace string) *argo {
	t.Helper()
	version := cluster.ArgoVersions()[0]
	manifest, err := cluster.ArgoManifest(version, testcluster.ArgoNamespaces{Controller: namespace, Workflows: namespace})
	if err != nil {
		t.Fatal(err)
	}
	a := &argo{version: version, space: space{namespace}}
	t.Cleanup(func() {
		a.removeWorkflows(t) // while the controller runs: the pods have its finalizers
		kubectl(t, "delete", "--ignore-not-found", "--timeout", within.String(), "namespace/"+namespace, "clusterrolebinding/"+namespace)
	})
	if _, err := cluster.KubectlWith(t.Context(), bytes.NewReader(manifest), "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", namespace, "rollout", "status", "deployment/workflow-controller", "--timeout", within.String())
	return a
}

// removeWorkflows deletes all workflows of the namespace and waits for the end of their pods.
func (a *argo) removeWorkflows(t *testing.T) {
	t.Helper()
	kubectl(t, "-n", a.name, "delete", "workflows", "--all", "--timeout", within.String())
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within)
	defer cancel()
	pods, err := kube.typed.CoreV1().Pods(a.name).List(ctx, metav1.ListOptions{LabelSelector: workflowLabel})
	if err != nil {
		t.Fatal(err)
	}
	kind, err := kindOf(&corev1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		if err := gone(ctx, kind, a.name, pod.Name); err != nil {
			t.Error(err)
		}
	}
}
