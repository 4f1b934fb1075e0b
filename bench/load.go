package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// oneAtATime alternates between the runtimes, so that a drift of the machine's speed affects
// both.
func (p plan) oneAtATime(ctx context.Context, pair []contender) error {
	progress("%d containers of each runtime, one at a time", p.n)
	times := []samples{{}, {}}
	for i := range p.n {
		for k, c := range pair {
			if err := c.cycle(ctx, fmt.Sprintf("one-%s-%d", c.name, i), times[k]); err != nil {
				return err
			}
		}
	}
	printPhases(os.Stdout, fmt.Sprintf("one at a time, n=%d each, alternating", p.n), phases, times[0], times[1])
	ratio := times[0].quantile(total, 0.5) / times[1].quantile(total, 0.5)
	printGoal(os.Stdout, "whole cycle, wasm/runc, p50", ratio, "≤", 0.6, "")
	return nil
}

// rounds is the number of turns of each runtime into which the containers at once are divided.
const rounds = 5

// atOnce alternates between the runtimes in rounds.
func (p plan) atOnce(ctx context.Context, pair []contender) error {
	perRound := max(1, 2*p.n/rounds)
	progress("%d containers of each runtime, %d at once", rounds*perRound, p.parallel)
	times := []samples{{}, {}}
	var took [2]time.Duration
	for round := range rounds {
		for k, c := range pair {
			begun := time.Now()
			if err := p.crowdOf(ctx, c, round, perRound, times[k]); err != nil {
				return err
			}
			took[k] += time.Since(begun)
		}
	}
	n := rounds * perRound
	printPhases(os.Stdout, fmt.Sprintf("%d at once, n=%d each, in alternating rounds of %d", p.parallel, n, perRound), phases, times[0], times[1])
	ours, theirs := float64(n)/took[0].Seconds(), float64(n)/took[1].Seconds()
	fmt.Printf("  containers per second: wasm %.1f, runc %.1f\n", ours, theirs)
	printGoal(os.Stdout, "containers per second, wasm/runc", ours/theirs, "≥", 1.7, "")
	return nil
}

// crowdOf runs n containers, p.parallel at once.
func (p plan) crowdOf(ctx context.Context, c contender, round, n int, times samples) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.parallel)
	var mu sync.Mutex
	for i := range n {
		group.Go(func() error {
			own := samples{}
			err := c.cycle(ctx, fmt.Sprintf("many-%s-%d-%d", c.name, round, i), own)
			mu.Lock()
			defer mu.Unlock()
			times.merge(own)
			return err
		})
	}
	return group.Wait()
}
