package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// samples are measured times, by the name of the phase.
type samples map[string][]time.Duration

func (s samples) add(what string, d time.Duration) { s[what] = append(s[what], d) }

func (s samples) merge(other samples) {
	for what, times := range other {
		s[what] = append(s[what], times...)
	}
}

// quantile returns the smallest time that the share q of the sample does not exceed (nearest rank), in
// milliseconds; NaN without samples.
func (s samples) quantile(what string, q float64) float64 {
	times := slices.Sorted(slices.Values(s[what]))
	if len(times) == 0 {
		return math.NaN()
	}
	rank := int(math.Ceil(q * float64(len(times))))
	return float64(times[max(rank, 1)-1].Microseconds()) / 1000
}

// printPhases prints the phases of two runtimes side by side, in milliseconds.
func printPhases(w io.Writer, title string, phases []string, ours, theirs samples) {
	fmt.Fprintf(w, "\n%s\n", title)
	table := newTable(w)
	fmt.Fprintln(table, "ms\twasm p50\twasm p95\trunc p50\trunc p95\tratio p50\t")
	for _, phase := range phases {
		a, b := ours.quantile(phase, 0.5), theirs.quantile(phase, 0.5)
		fmt.Fprintf(table, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%s\t\n", phase,
			a, ours.quantile(phase, 0.95), b, theirs.quantile(phase, 0.95), ratio(a, b))
	}
	table.Flush()
}

// printShares prints how much of the mean time each phase takes.
func printShares(w io.Writer, phases []string, ours, theirs samples) {
	table := newTable(w)
	fmt.Fprintln(table, "share of the mean time\twasm\trunc\t")
	for _, phase := range phases[:len(phases)-1] {
		fmt.Fprintf(table, "%s\t%.0f %%\t%.0f %%\t\n", phase, 100*ours.mean(phase)/ours.mean(total), 100*theirs.mean(phase)/theirs.mean(total))
	}
	table.Flush()
}

// mean returns the mean in milliseconds; NaN without samples.
func (s samples) mean(what string) float64 {
	var sum time.Duration
	for _, d := range s[what] {
		sum += d
	}
	return float64(sum.Microseconds()) / 1000 / float64(len(s[what]))
}

// ratio returns "-" if there is nothing to compare with: with runc, hello world has often ended before
// start returns.
func ratio(a, b float64) string {
	if b < 0.1 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

func newTable(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
}

// verdict is the word next to a figure.
func verdict(met bool) string {
	if met {
		return "met"
	}
	return "missed"
}

// printGoal prints a figure and its goal.
func printGoal(w io.Writer, what string, figure float64, sign string, goal float64, unit string) {
	met := map[string]bool{"≤": figure <= goal, "<": figure < goal, "≥": figure >= goal}[sign]
	fmt.Fprintf(w, "  %-46s %7.2f %-3s goal %s %g: %s\n", what, figure, unit, sign, goal, verdict(met))
}
