package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
	"github.com/wasmshim/containerd-shim-wasm/internal/text"
	"github.com/wasmshim/containerd-shim-wasm/shim"
	"github.com/wasmshim/containerd-shim-wasm/shim/remote"
)

const artifactsUsage = `usage: containerd-shim-wasm-v1 artifacts [POD]
Lists the artifacts of the node's containers that are served now, or those of one pod: its name, or the beginning of its
id. Sizes are in bytes. USED is what the container has read or written, MOVED what came from the store or went to it; of
the reads, HITS found their bytes in memory.
`

// listArtifacts prints a table of the artifacts that are served on the node, or in one pod.
func listArtifacts(args []string, out io.Writer) error {
	if slices.Contains(args, "-h") || slices.Contains(args, "--help") {
		_, err := io.WriteString(out, artifactsUsage)
		return err
	}
	if len(args) > 1 || len(args) == 1 && strings.HasPrefix(args[0], "-") {
		return errors.New("artifacts: it takes the name of a pod, and nothing else; see artifacts -h")
	}
	all, failed := remote.ListArtifacts(context.Background(), shim.SocketDir)
	if len(args) == 1 {
		all = slices.DeleteFunc(all, func(a remote.Artifacts) bool {
			return a.Pod != args[0] && a.Namespace+"/"+a.Pod != args[0] && !strings.HasPrefix(a.Sandbox, args[0])
		})
	}
	slices.SortStableFunc(all, func(a, b remote.Artifacts) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Container, b.Container))
	})
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "POD\tCONTAINER\tARTIFACT\tPATH\tOBJECT\tSIZE\tUSED\tMOVED\tREQUESTS\tRETRIES\tHITS\tMISSES\tSTATE")
	for _, of := range all {
		if of.Error != "" {
			failed = errors.Join(failed, fmt.Errorf("container %s of pod %s/%s: %s", of.Container, of.Namespace, of.Pod, of.Error))
		}
		for _, a := range of.Artifacts {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", text.Printable(podName(of)), text.Printable(of.Container),
				text.Printable(a.Name), text.Printable(a.Path), text.Printable(a.Object), a.Size, a.Used, a.Moved, a.Requests, a.Retries, a.Hits, a.Misses, text.Printable(stateOf(a)))
		}
	}
	return errors.Join(table.Flush(), failed)
}

func podName(of remote.Artifacts) string {
	if of.Pod == "" {
		return cmp.Or(of.Sandbox, "-")
	}
	return of.Namespace + "/" + of.Pod
}

func stateOf(a progress.Artifact) string {
	if a.State != "" {
		return a.State
	}
	if a.Output {
		return "writing"
	}
	return "reading"
}
