// Package e2e runs pods and workflows on a whole Kubernetes cluster, as a person with kubectl does, and checks
// what they and the node show. It holds no code that is shipped.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
)

// The cluster that all tests share, and the client of its API server.
var (
	cluster *testcluster.Cluster
	kube    *api
)

func TestMain(m *testing.M) {
	flag.Parse()
	if flag.Lookup("test.list").Value.String() != "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code, err := run(ctx, m)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// run brings up the missing parts of the cluster, runs the tests and checks what they have left behind. The
// cluster stays up: "make cluster-down" ends it.
func run(ctx context.Context, m *testing.M) (int, error) {
	var err error
	if cluster, err = testcluster.Up(ctx, testcluster.Options{}, os.Stderr); err != nil {
		return 1, fmt.Errorf("bringing up the cluster: %w", err)
	}
	if kube, err = connect(cluster.RESTConfig()); err != nil {
		return 1, err
	}
	if err := importImages(ctx); err != nil {
		return 1, err
	}
	if err := removeSpaces(ctx); err != nil { // namespaces of a run that was interrupted
		return 1, err
	}
	before, err := cluster.Snapshot()
	if err != nil {
		return 1, err
	}
	code := m.Run()
	if err := removeSpaces(ctx); err != nil {
		return 1, err
	}
	left, err := cluster.Leaks(ctx, before)
	if len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("left behind on the node:\n\t%s", strings.Join(left, "\n\t")))
	}
	return code, err
}

// spaceLabel marks the namespaces of tests.
const spaceLabel = "e2e"

// removeSpaces deletes the namespaces of tests and waits until they are gone, and with them all pods.
func removeSpaces(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*within)
	defer cancel()
	spaces := kube.typed.CoreV1().Namespaces()
	list, err := spaces.List(ctx, metav1.ListOptions{LabelSelector: spaceLabel})
	if err != nil {
		return err
	}
	var failures []error
	for _, space := range list.Items {
		if space.DeletionTimestamp == nil {
			failures = append(failures, spaces.Delete(ctx, space.Name, metav1.DeleteOptions{}))
		}
	}
	for _, space := range list.Items {
		failures = append(failures, gone(ctx, schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, "", space.Name))
	}
	return errors.Join(failures...)
}
