// Command bench measures the shim and runc on this machine and prints the results next to the
// project's goals: whole containers through a real containerd, the sandbox launch below it, and
// memory. It needs root and bin/containerd-shim-wasm-v1 (make bench builds it first), and changes
// nothing outside of the private containerd that it starts.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// plan has the amounts to measure.
type plan struct {
	n          int  // containers of each runtime one after the other; twice as many at once
	parallel   int  // containers at once
	launchOnly bool // measure the sandbox launch only
	filesOnly  bool // measure file operations only
	sizesOnly  bool // measure the start of a small and of a large module only
	workers    int  // workers of one module that share its code
	podsOnly   bool // leave out the measurements below and beside pods
	pods       int  // Kubernetes pods of each runtime; 0 leaves the cluster out
	fanOut     int  // tasks of a workflow
	fanOuts    int  // workflows of each runtime

	clusterOnly   bool // leave out the measurements below the cluster
	artifactsOnly bool // measure input artifacts only, on the cluster
	eventedPLEG   bool // as in testcluster.Options
	requeue       time.Duration
	crowd         int // running containers when memory is measured
	versions      []string
}

func main() {
	var p plan
	var versions string
	flag.IntVar(&p.n, "n", 100, "containers of each runtime one at a time, and launches; when many run at once, twice as many")
	flag.IntVar(&p.parallel, "c", 8, "containers at once")
	flag.IntVar(&p.crowd, "crowd", 20, "containers that run while memory is measured")
	flag.BoolVar(&p.launchOnly, "launch", false, "measure only the sandbox launch, below containerd")
	flag.BoolVar(&p.sizesOnly, "sizes", false, "measure only the start of a small and of a large module")
	flag.BoolVar(&p.filesOnly, "files", false, "measure only file operations of guests")
	flag.IntVar(&p.workers, "workers", 50, "workers of one module that share its code")
	flag.BoolVar(&p.podsOnly, "pods", false, "measure only pods through CRI")
	flag.IntVar(&p.pods, "cluster-pods", 20, "pods of each runtime on a Kubernetes cluster; 0 leaves the cluster out")
	flag.IntVar(&p.fanOut, "fan-out", 50, "tasks of a workflow on the cluster")
	flag.IntVar(&p.fanOuts, "fan-outs", 3, "workflows of each runtime on the cluster")
	flag.BoolVar(&p.clusterOnly, "cluster", false, "measure only on the cluster")
	flag.BoolVar(&p.artifactsOnly, "artifacts", false, "measure only input artifacts on the cluster")
	flag.BoolVar(&p.eventedPLEG, "evented-pleg", false, "let the kubelet see the ends of containers by events, on a cluster that is not up yet")
	flag.DurationVar(&p.requeue, "requeue", 3*time.Second, "DEFAULT_REQUEUE_TIME of Argo's controller, whose own default is 10s, on a cluster that is not up yet")
	flag.StringVar(&versions, "versions", testnode.DefaultVersion, "containerd versions, of "+strings.Join(testnode.Versions(), ","))
	flag.Parse()
	p.versions = strings.Split(versions, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := p.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (p plan) run(ctx context.Context) error {
	if p.n < 1 || p.parallel < 1 || p.crowd < 1 || p.workers < 1 {
		return errors.New("-n, -c, -crowd and -workers must be at least 1")
	}
	if err := printMachine(os.Stdout); err != nil {
		return err
	}
	if p.clusterOnly || p.artifactsOnly {
		return p.measureCluster(ctx)
	}
	if p.launchOnly {
		return p.measureLaunches(ctx)
	}
	if p.filesOnly {
		return p.measureFiles(ctx)
	}
	var measures []func(context.Context, string) error
	if !p.sizesOnly {
		measures = append(measures, p.measurePods)
	}
	if !p.sizesOnly && !p.podsOnly {
		if err := errors.Join(p.measureLaunches(ctx), p.measureFiles(ctx)); err != nil {
			return err
		}
		measures = append(measures, onNode(p.measureNode))
	}
	if !p.podsOnly {
		if err := p.measureSizes(ctx); err != nil {
			return fmt.Errorf("modules of two sizes: %w", err)
		}
		measures = append(measures, onNode(p.measureSizesNode))
	}
	for _, version := range p.versions {
		for _, measure := range measures {
			if err := measure(ctx, version); err != nil {
				return fmt.Errorf("containerd %s: %w", version, err)
			}
		}
	}
	if p.pods == 0 || p.podsOnly || p.sizesOnly {
		return nil
	}
	return p.measureCluster(ctx)
}

func (p plan) measureLaunches(ctx context.Context) error {
	progress("launching %d sandboxes without containerd", p.n)
	launches, err := measureLaunch(ctx, p.n)
	if err != nil {
		return fmt.Errorf("launch below containerd: %w", err)
	}
	launches.print(os.Stdout)
	return nil
}

// onNode returns measure for one version of containerd; the result starts and stops that
// containerd.
func onNode(measure func(context.Context, *testnode.Node, *client.Client) error) func(context.Context, string) error {
	return func(ctx context.Context, version string) (err error) {
		progress("starting containerd %s", version)
		node, err := testnode.Start(ctx, testnode.Options{Version: version, LogLevel: "warn"})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, node.Stop()) }()
		c, err := node.Connect()
		if err != nil {
			return err
		}
		defer c.Close()
		return measure(ctx, node, c)
	}
}

// measureNode measures our containers and runc's.
func (p plan) measureNode(ctx context.Context, node *testnode.Node, client *client.Client) error {
	fmt.Printf("\ncontainerd %s, hello world in C, as Wasm (precompiled) and as a static native program\n", node.Release)
	pair, err := contenders(ctx, node, client)
	if err != nil {
		return err
	}
	if err := p.oneAtATime(ctx, pair); err != nil {
		return err
	}
	if err := p.atOnce(ctx, pair); err != nil {
		return err
	}
	return p.measureMemory(ctx, node, client)
}

// printMachine prints the machine on which the figures are measured, and its load before the
// measurement.
func printMachine(w io.Writer) error {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	fields := strings.Fields(string(load))
	if len(fields) < 3 {
		return fmt.Errorf("/proc/loadavg holds %q", load)
	}
	fmt.Fprintf(w, "%s, %d processors, load average before %s\n", runtime.GOARCH, runtime.NumCPU(), strings.Join(fields[:3], " "))
	return nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }
