package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// artifactSizes are those of the artifacts, in MB.
var artifactSizes = []int{1, 100, 1000}

// artifactRounds is how often each is read in each way.
const artifactRounds = 3

// artifactWays are the ways in which a step gets an input artifact. The first one is ours.
var artifactWays = []struct {
	name        string
	contender   clusterContender
	annotations map[string]any
}{
	{"wasm, as a file", clusterPair[0], nil},
	{"wasm, downloaded", clusterPair[0], map[string]any{"wasm.shim/download-artifacts": "true"}},
	{"runc", clusterPair[1], nil},
}

// artifactKinds are the kinds of objects, and what the template says of them.
var artifactKinds = []struct {
	name    string
	archive map[string]any
	write   func(w io.Writer, size int64) error
}{
	{"plain", map[string]any{"none": map[string]any{}}, func(w io.Writer, size int64) error {
		_, err := io.CopyN(w, rand.Reader, size)
		return err
	}},
	{"tgz", map[string]any{"tar": map[string]any{}}, writeTarball},
}

func writeTarball(w io.Writer, size int64) error {
	compressed, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(compressed)
	if err := archive.WriteHeader(&tar.Header{Name: "data", Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err = io.CopyN(archive, rand.Reader, size)
	return errors.Join(err, archive.Close(), compressed.Close())
}

// measureArtifacts measures steps that read a kilobyte of an input artifact: how long it takes from the start of the pod's
// sandbox until that is read, and until the pod has succeeded.
func (b *clusterBench) measureArtifacts(ctx context.Context) error {
	if err := b.importSleeper(ctx); err != nil {
		return err
	}
	fmt.Printf("\na step reads 1 KB of an input artifact: from its sandbox to the end of main, s, median of %d (and to Succeeded, from create)\n%-12s", artifactRounds, "")
	for _, way := range artifactWays {
		fmt.Printf("%24s", way.name)
	}
	fmt.Println()
	for _, kind := range artifactKinds {
		for _, size := range artifactSizes {
			progress("an artifact of %d MB, %s", size, kind.name)
			first, whole, err := b.readArtifacts(ctx, size, kind.archive, kind.write)
			if err != nil {
				return fmt.Errorf("%s of %d MB: %w", kind.name, size, err)
			}
			fmt.Printf("%-5s%4d MB", kind.name, size)
			for i := range artifactWays {
				fmt.Printf("%16.2f (%5.2f)", median(first[i]), median(whole[i]))
			}
			fmt.Println()
			if size == artifactSizes[len(artifactSizes)-1] {
				printGoal(os.Stdout, "until it is read, as a file/runc", median(first[0])/median(first[2]), "≤", 0.1, "")
				printGoal(os.Stdout, "until Succeeded, as a file/runc", median(whole[0])/median(whole[2]), "≤", 0.2, "")
			}
		}
	}
	return nil
}

// readArtifacts returns both times, in seconds, of each way.
func (b *clusterBench) readArtifacts(ctx context.Context, size int, archive map[string]any, write func(io.Writer, int64) error) (first, whole [][]float64, err error) {
	key := fmt.Sprintf("bench-artifact-%d", size)
	file := filepath.Join(b.cluster.S3().Dir, key)
	if err := createFile(file, int64(size)*1e6, write); err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(file)) }()
	first, whole = make([][]float64, len(artifactWays)), make([][]float64, len(artifactWays))
	for range artifactRounds {
		for i, way := range artifactWays {
			c := way.contender
			c.image, c.args = sleeperImage, []any{"part", "/in/data", "0", "1000"}
			workflow := fanOutWorkflow(c, 1)
			if err := giveArtifact(workflow, key, archive, way.annotations); err != nil {
				return nil, nil, err
			}
			err := b.step(ctx, workflow, 1, corev1.PodSucceeded, func(pod *corev1.Pod, took time.Duration) error {
				tasks, err := b.tasks.ofPod(ctx, pod)
				first[i] = append(first[i], tasks["main"].ended.Sub(tasks[""].started).Seconds())
				whole[i] = append(whole[i], took.Seconds())
				return err
			})
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", way.name, err)
			}
		}
	}
	return first, whole, nil
}

func createFile(name string, size int64, write func(io.Writer, int64) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f, size), f.Close())
}

// giveArtifact adds an input artifact at /in/data to the step of a workflow.
func giveArtifact(workflow *unstructured.Unstructured, key string, archive, annotations map[string]any) error {
	templates, _, err := unstructured.NestedSlice(workflow.Object, "spec", "templates")
	if err != nil {
		return err
	}
	step := templates[1].(map[string]any)
	step["inputs"] = map[string]any{"artifacts": []any{
		map[string]any{"name": "data", "path": "/in/data", "archive": archive, "s3": map[string]any{"key": key}},
	}}
	if annotations != nil {
		step["metadata"] = map[string]any{"annotations": annotations}
	}
	return unstructured.SetNestedSlice(workflow.Object, templates, "spec", "templates")
}
