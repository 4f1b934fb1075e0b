package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// measureMemory reads the memory of workers and daemons while many guests sleep.
func (p plan) measureMemory(ctx context.Context, node *testnode.Node, c *client.Client) error {
	progress("memory of %d running containers", p.crowd)
	opts, err := testguest.WasmImage("probe")
	if err != nil {
		return err
	}
	image, err := importImage(ctx, node, c, "sleeper", opts)
	if err != nil {
		return err
	}
	sleeper := contender{name: "sleeper", runtime: wasmRuntime, client: c, image: image}
	var tasks []client.Task
	for i := range p.crowd {
		task, err := sleeper.sleep(ctx, fmt.Sprintf("sleeper-%d", i), filepath.Join(node.Dir, fmt.Sprintf("sleeper-%d.log", i)))
		if task != nil {
			// The tasks are also removed when the benchmark is interrupted.
			defer remove(context.WithoutCancel(ctx), task, c)
		}
		if err != nil {
			return err
		}
		tasks = append(tasks, task)
	}
	var workers, daemons []float64
	for _, task := range tasks {
		worker, daemon, err := privateMemory(int(task.Pid()))
		if err != nil {
			return err
		}
		workers, daemons = append(workers, worker), append(daemons, daemon)
	}
	fmt.Printf("\nprivate memory at %d running containers, MB, median (most)\n", len(workers))
	printMemory("worker", workers, 2)
	printMemory("daemon", daemons, 4)
	return nil
}

// median returns the upper one of an even number of sizes.
func median(sizes []float64) float64 { return slices.Sorted(slices.Values(sizes))[len(sizes)/2] }

func printMemory(what string, sizes []float64, goal float64) {
	printGoal(os.Stdout, fmt.Sprintf("%s (%.2f)", what, slices.Max(sizes)), median(sizes), "≤", goal, "MB")
}

// sleep starts a guest that sleeps and returns when it does. The task is not nil if there is something to
// remove, even after an error.
func (c contender) sleep(ctx context.Context, id, log string) (client.Task, error) {
	container, err := c.newContainer(ctx, id, oci.WithProcessArgs("/app.wasm", "sleep", "3600"))
	if err != nil {
		return nil, err
	}
	task, err := container.NewTask(ctx, cio.LogFile(log))
	if err != nil {
		return nil, errors.Join(err, container.Delete(ctx, client.WithSnapshotCleanup))
	}
	if err := task.Start(ctx); err != nil {
		return task, err
	}
	return task, await(ctx, log, "sleeping\n")
}

// await returns when the file contains text.
func await(ctx context.Context, path, text string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for ticker := time.NewTicker(5 * time.Millisecond); ; {
		content, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if bytes.Contains(content, []byte(text)) {
			ticker.Stop()
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %q in %s: %w", text, path, ctx.Err())
		}
	}
}

func remove(ctx context.Context, task client.Task, c *client.Client) {
	_, err := task.Delete(ctx, client.WithProcessKill)
	container, loadErr := c.LoadContainer(ctx, task.ID())
	if loadErr == nil {
		err = errors.Join(err, container.Delete(ctx, client.WithSnapshotCleanup))
	}
	if err = errors.Join(err, loadErr); err != nil {
		progress("removing %s: %v", task.ID(), err)
	}
}

// privateMemory returns the memory that a worker and its parent, the daemon, share with no process, in MB.
func privateMemory(worker int) (ofWorker, ofDaemon float64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", worker))
	if err != nil {
		return 0, 0, err
	}
	// The name in parentheses may contain anything; the parent's id is the second field after it
	// (proc_pid_stat(5)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0, 0, fmt.Errorf("process %d: short stat", worker)
	}
	daemon, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0, 0, err
	}
	if ofWorker, err = private(worker); err != nil {
		return 0, 0, err
	}
	ofDaemon, err = private(daemon)
	return ofWorker, ofDaemon, err
}

// private sums Private_Clean and Private_Dirty of smaps_rollup (proc_pid_smaps(5)).
func private(pid int) (float64, error) {
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	kilobytes := 0
	for line := range strings.Lines(string(rollup)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[0] != "Private_Clean:" && fields[0] != "Private_Dirty:" {
			continue
		}
		n, err := strconv.Atoi(fields[1])
		if err != nil {
			return 0, fmt.Errorf("smaps_rollup of process %d: %w", pid, err)
		}
		kilobytes += n
	}
	return float64(kilobytes) * 1024 / 1e6, nil
}
