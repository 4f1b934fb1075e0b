package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// Two programs that do the same and differ in size. Containers of both start equally fast if no part of
// a start grows with the module.
const (
	smallProgram = 67     // functions, which are about 100 KB of machine code
	largeProgram = 26_600 // and 40 MB
)

// programs are the files of the two programs.
func programs() (small, large string, err error) {
	if small, err = testguest.Keep("small.wasm", testguest.Program(smallProgram)); err != nil {
		return "", "", err
	}
	large, err = testguest.Keep("large.wasm", testguest.Program(largeProgram))
	return small, large, err
}

// measureSizes compares the two programs below containerd, and makes many workers share the code of the
// large one.
func (p plan) measureSizes(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	small, large, err := programs()
	if err != nil {
		return err
	}
	var stages []*stage
	for _, module := range []string{small, large} {
		progress("compiling %s; a large module takes most of a minute", filepath.Base(module))
		own := filepath.Join(dir, filepath.Base(module))
		if err := os.Mkdir(own, 0o700); err != nil {
			return err
		}
		s, err := newStage(ctx, own, module)
		if err != nil {
			return err
		}
		defer s.close()
		stages = append(stages, s)
	}
	if err := p.launchSizes(ctx, stages); err != nil {
		return err
	}
	return p.shareCode(ctx, stages[1])
}

// launchSizes alternates between the two programs.
func (p plan) launchSizes(ctx context.Context, stages []*stage) error {
	progress("launching %d sandboxes of each size", p.n)
	times := []samples{{}, {}}
	for i := range p.n + 1 {
		for k, s := range stages {
			into := times[k]
			if i == 0 {
				into = samples{} // the first launches load the files into memory
			}
			if err := errors.Join(ctx.Err(), s.launch(ctx, into)); err != nil {
				return err
			}
		}
	}
	fmt.Printf("\nstart-up by the size of the machine code, %.2f and %.1f MB, below containerd, n=%d each, alternating\n",
		stages[0].megabytes(), stages[1].megabytes(), p.n)
	printSizes(times, []string{untilLaunched, untilExit, launchToExit}, 2)
	printGoal(os.Stdout, "launch to exit, large/small, p50", times[1].quantile(launchToExit, 0.5)/times[0].quantile(launchToExit, 0.5), "≤", 1.3, "")
	return nil
}

// printSizes prints the times of the two programs with the given number of decimals.
func printSizes(times []samples, phases []string, decimals int) {
	table := newTable(os.Stdout)
	fmt.Fprintln(table, "ms\tsmall p50\tsmall p95\tlarge p50\tlarge p95\tratio p50\t")
	for _, phase := range phases {
		a, b := times[0].quantile(phase, 0.5), times[1].quantile(phase, 0.5)
		fmt.Fprintf(table, "%s\t%.*f\t%.*f\t%.*f\t%.*f\t%s\t\n", phase, decimals, a, decimals, times[0].quantile(phase, 0.95),
			decimals, b, decimals, times[1].quantile(phase, 0.95), ratio(b, a))
	}
	table.Flush()
}

func (s *stage) megabytes() float64 {
	info, err := s.code.Stat()
	if err != nil {
		return 0
	}
	return float64(info.Size()) / 1e6
}

// measureSizesNode compares the two programs as containers.
func (p plan) measureSizesNode(ctx context.Context, node *testnode.Node, client *client.Client) error {
	small, large, err := programs()
	if err != nil {
		return err
	}
	var pair []contender
	for _, module := range []string{small, large} {
		name := strings.TrimSuffix(filepath.Base(module), ".wasm")
		progress("compiling %s; a large module takes most of a minute", name)
		image := testguest.ImageOpts{Files: map[string]string{"/app.wasm": module}, Entrypoint: []string{"/app.wasm"}}
		c, err := newContender(ctx, node, client, name, wasmRuntime, image)
		if err != nil {
			return err
		}
		pair = append(pair, c)
	}
	return p.cycleSizes(ctx, node.Release, pair)
}

func (p plan) cycleSizes(ctx context.Context, release string, pair []contender) error {
	progress("%d containers of each size, one at a time", p.n)
	times := []samples{{}, {}}
	for i := range p.n {
		for k, c := range pair {
			if err := c.cycle(ctx, fmt.Sprintf("size-%s-%d", c.name, i), times[k]); err != nil {
				return err
			}
		}
	}
	fmt.Printf("\ncontainerd %s, whole containers of the two sizes, one at a time, n=%d each, alternating\n", release, p.n)
	printSizes(times, phases, 1)
	printGoal(os.Stdout, "whole cycle, large/small, p50", times[1].quantile(total, 0.5)/times[0].quantile(total, 0.5), "≤", 1.3, "")
	return nil
}

// shareCode starts many workers of one module and measures how much of its code each has for itself.
func (p plan) shareCode(ctx context.Context, s *stage) error {
	progress("%d workers of one module", p.workers)
	var resident, proportional float64
	var pids []int
	defer func() {
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
	}()
	for range p.workers {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pid, err := s.sleeper(ctx)
		if pid != 0 {
			pids = append(pids, pid)
		}
		if err != nil {
			return err
		}
	}
	for _, pid := range pids {
		rss, pss, err := readMapping(pid)
		if err != nil {
			return err
		}
		resident, proportional = resident+rss, proportional+pss
	}
	n := float64(len(pids))
	fmt.Printf("\n%d workers of one module of %.1f MB, most of its code called: mapped from it, %.1f MB each (RSS), %.2f MB each for its share (PSS)\n",
		len(pids), s.megabytes(), resident/n, proportional/n)
	printGoal(os.Stdout, "PSS/RSS of the module, times the workers", proportional/resident*n, "≤", 1.1, "")
	return nil
}

// sleeper starts a worker whose guest has called its code and sleeps. The process is not 0 if there is
// something to end, even after an error.
func (s *stage) sleeper(ctx context.Context) (int, error) {
	ours, theirs, err := control.Pair()
	if err != nil {
		return 0, err
	}
	defer ours.Close()
	output, input, err := os.Pipe()
	if err != nil {
		theirs.Close()
		return 0, err
	}
	defer output.Close()
	pid, err := s.start(ctx, theirs.File, input)
	err = errors.Join(err, theirs.Close(), input.Close())
	if err != nil {
		return pid, err
	}
	if err := s.run(ours, "sleep"); err != nil {
		return pid, err
	}
	_, err = io.ReadFull(output, make([]byte, 1))
	return pid, err
}

// readMapping sums a worker's resident memory of the file with its code, in MB: all, and its share
// (proc_pid_smaps(5)).
func readMapping(pid int) (resident, proportional float64, err error) {
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		return 0, 0, err
	}
	ofModule := false
	for line := range strings.Lines(string(smaps)) {
		fields := strings.Fields(line)
		if len(fields) >= 5 && strings.Contains(fields[0], "-") {
			ofModule = len(fields) > 5 && fields[5] == sandbox.CodePath
			continue
		}
		if !ofModule || len(fields) != 3 || fields[0] != "Rss:" && fields[0] != "Pss:" {
			continue
		}
		kilobytes, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return 0, 0, fmt.Errorf("smaps of process %d: %w", pid, err)
		}
		if fields[0] == "Rss:" {
			resident += kilobytes * 1024 / 1e6
		} else {
			proportional += kilobytes * 1024 / 1e6
		}
	}
	return resident, proportional, nil
}
