package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// fileRounds is how often the guests are run, in turn. The least time of an operation counts.
const fileRounds = 3

// fileTimes are the least times of the operations, in nanoseconds, in the order in which they are made.
type fileTimes struct {
	names []string
	least map[string]float64
}

// add adds what a guest has printed.
func (f *fileTimes) add(printed string) error {
	for line := range strings.Lines(printed) {
		number, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		ns, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return fmt.Errorf("the guest has printed %q: %w", line, err)
		}
		before, known := f.least[name]
		if !known {
			f.names = append(f.names, name)
		}
		if !known || ns < before {
			f.least[name] = ns
		}
	}
	return nil
}

// measureFiles compares file operations of a native program, a module and a component, all of one source. The
// native program is not in a sandbox.
func (p plan) measureFiles(ctx context.Context) error {
	progress("file operations of three guests, %d times each", fileRounds)
	// In memory: a disk is not what is measured.
	dir, err := os.MkdirTemp("/dev/shm", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	native, err := testguest.File("files-native")
	if err != nil {
		return err
	}
	module, err := testguest.File("files")
	if err != nil {
		return err
	}
	component, err := testguest.Component(module)
	if err != nil {
		return err
	}
	empty := filepath.Join(dir, "native")
	if err := os.Mkdir(empty, 0o755); err != nil {
		return err
	}
	runs := []func() (string, error){func() (string, error) {
		output, err := exec.CommandContext(ctx, native, empty).Output()
		return string(output), err
	}}
	for i, program := range []string{module, component} {
		own := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(own, 0o700); err != nil {
			return err
		}
		s, err := newStage(ctx, own, program)
		if err != nil {
			return err
		}
		defer s.close()
		s.spec.Process.Args = []string{"/app.wasm", "/bench"}
		if err := os.Mkdir(filepath.Join(s.rootfs, "bench"), 0o755); err != nil {
			return err
		}
		runs = append(runs, func() (string, error) { return s.output(ctx) })
	}
	times := make([]fileTimes, len(runs))
	for i := range times {
		times[i].least = map[string]float64{}
	}
	for range fileRounds {
		for i, run := range runs {
			printed, err := run()
			if err == nil {
				err = times[i].add(printed)
			}
			if err != nil {
				return err
			}
		}
	}
	printFiles(os.Stdout, times)
	return nil
}

// output runs the guest once and returns what it prints.
func (s *stage) output(ctx context.Context) (string, error) {
	ours, theirs, err := control.Pair()
	if err != nil {
		return "", err
	}
	defer ours.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer reader.Close()
	pid, err := s.start(ctx, theirs.File, writer)
	theirs.Close()
	writer.Close()
	if err != nil {
		return "", err
	}
	err = s.run(ours, "_start")
	var printed bytes.Buffer
	_, copyErr := io.Copy(&printed, reader)
	var status unix.WaitStatus
	_, waitErr := unix.Wait4(pid, &status, 0, nil)
	if err := errors.Join(err, copyErr, waitErr); err != nil || status.ExitStatus() != 0 {
		return "", fmt.Errorf("the guest ended with %v: %w", status, err)
	}
	return printed.String(), nil
}

func printFiles(w io.Writer, times []fileTimes) {
	fmt.Fprintf(w, "\nfile operations, the least of %d runs in turn\n", fileRounds)
	table := newTable(w)
	fmt.Fprintln(table, "µs\tnative\tmodule\tcomponent\t")
	worst := 0.0
	for _, name := range times[0].names {
		fmt.Fprintf(table, "%s\t", name)
		for _, t := range times {
			fmt.Fprintf(table, "%.2f\t", t.least[name]/1000)
		}
		fmt.Fprintln(table)
		worst = max(worst, (times[1].least[name]-500)/times[0].least[name])
	}
	table.Flush()
	printGoal(w, "an operation of a module less 0.5 µs, module/native, the worst", worst, "≤", 1.5, "")
}
