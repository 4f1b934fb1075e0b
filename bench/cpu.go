package main

import (
	"context"
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/poll"
	"github.com/wasmshim/containerd-shim-wasm/internal/testcluster"
)

// cpuShares are the rows of the table of processor time, and the parts of the cluster that each sums.
var cpuShares = []struct {
	name  string
	parts []string
}{
	{"API server and etcd", []string{testcluster.APIServer, testcluster.Etcd}},
	{"scheduler and controllers", []string{testcluster.Scheduler, testcluster.ControllerManager}},
	{"Argo's controllers", []string{testcluster.ArgoController}},
	{"kubelet", []string{testcluster.Kubelet}},
	{"containerd, shim verbs, CNI", []string{testcluster.Containerd}},
	{"shims and runc", []string{testcluster.Shims}},
	{"in the pods' containers", []string{testcluster.Containers}},
}

// cpuMeter sums the processor time of the whole node by share.
type cpuMeter struct {
	spent map[string]time.Duration
	steps int
}

// during adds what the node takes for some steps while do runs.
func (m *cpuMeter) during(cluster *testcluster.Cluster, steps int, do func() error) error {
	before, err := cluster.CPU()
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	after, err := cluster.CPU()
	if err != nil {
		return err
	}
	if m.spent == nil {
		m.spent = map[string]time.Duration{}
	}
	for _, share := range cpuShares {
		for _, part := range share.parts {
			m.spent[share.name] += after[part] - before[part]
			m.spent[total] += after[part] - before[part]
		}
	}
	m.steps += steps
	return nil
}

// perStep returns a share in milliseconds.
func (m *cpuMeter) perStep(share string) float64 {
	return float64(m.spent[share].Microseconds()) / 1000 / float64(m.steps)
}

func printCPU(w io.Writer, ours, theirs *cpuMeter) {
	fmt.Fprintf(w, "\nprocessor time of the node for each step, its pod's removal included, n=%d each\n", ours.steps)
	table := newTable(w)
	fmt.Fprintln(table, "ms\twasm\trunc\tratio\t")
	row := func(share string) {
		a, b := ours.perStep(share), theirs.perStep(share)
		fmt.Fprintf(table, "%s\t%.0f\t%.0f\t%s\t\n", share, a, b, ratio(a, b))
	}
	for _, share := range cpuShares {
		row(share.name)
	}
	row(total)
	table.Flush()
	printGoal(w, "processor time per step, wasm/runc", ours.perStep(total)/theirs.perStep(total), "≤", 0.5, "")
}

// removalWithin bounds the wait for the removal of a workflow's pods.
const removalWithin = 5 * time.Minute

// remove deletes a workflow and returns when its pods are gone, so that their removal is in the processor time of
// the workflow and not in that of the next one.
func (b *clusterBench) remove(ctx context.Context, namespace, workflow string) error {
	ctx, cancel := context.WithTimeout(ctx, removalWithin)
	defer cancel()
	if err := b.workflows.Resource(workflowResource).Namespace(namespace).Delete(ctx, workflow, metav1.DeleteOptions{}); err != nil {
		return err
	}
	return poll.Until(ctx, func() (bool, error) {
		pods, err := b.pods.CoreV1().Pods(namespace).List(ctx, podsOf(workflow))
		return err == nil && len(pods.Items) == 0, err
	})
}
