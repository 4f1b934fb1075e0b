package test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/minio/minio-go/v7"
	keys "github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
)

// What a container writes becomes objects if it succeeds, or if they are asked for always. One that cannot be stored
// fails the container, with words.
func TestRequestedOutputs(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		p := newRequestingPod(t, node, map[string]string{"bucket/data.csv": lazyData, "results/old": "old"})
		in := "s3://bucket/data.csv -> /in/file"
		for name, tc := range map[string]struct {
			output string
			args   []string
			code   uint32
			stored map[string]string // by name of the object, "" for none
			says   string
		}{
			"file":     {"/out/copy -> s3://results/copy", []string{"copy", "/in/file", "/out/copy"}, 0, map[string]string{"results/copy": lazyData}, ""},
			"replaced": {"/out/copy -> s3://results/old", []string{"write", "/out/copy", "new"}, 0, map[string]string{"results/old": "new"}, ""},
			"folder": {"/out -> s3://results/dir/", []string{"mkdir", "/out/d", ",", "write", "/out/d/a", "first", ",", "write", "/out/b", "second"}, 0,
				map[string]string{"results/dir/d/a": "first", "results/dir/b": "second"}, ""},
			"failed":        {"/out/x -> s3://results/failed", []string{"write", "/out/x", "x", ",", "exit", "3"}, 3, map[string]string{"results/failed": ""}, ""},
			"always":        {"/out/x -> s3://results/always?on=always", []string{"write", "/out/x", "x", ",", "exit", "3"}, 3, map[string]string{"results/always": "x"}, ""},
			"not written":   {"/out/x -> s3://results/none", []string{"exit", "0"}, 74, map[string]string{"results/none": ""}, "the task has not written it"},
			"wrong bucket":  {"/out/x -> s3://nobucket/x", []string{"write", "/out/x", "x"}, 74, nil, "s3://nobucket/x: The specified bucket does not exist"},
			"beside others": {"/out/x -> s3://results/x", []string{"write", "/out/x.tmp", "x", ",", "rename", "/out/x.tmp", "/out/x", ",", "write", "/out/y", "y"}, 0, map[string]string{"results/x": "x", "results/y": ""}, ""},
		} {
			t.Run(name, func(t *testing.T) {
				printed := p.run(tc.code, map[string]string{"in": in, "result": tc.output}, tc.args)
				for name, want := range tc.stored {
					if got := p.stored(name); got != want {
						t.Errorf("%s has %d bytes %.20q, want %d", name, len(got), got, len(want))
					}
				}
				if !strings.Contains(printed, tc.says) {
					t.Errorf("it printed\n%s", printed)
				}
				p.expectNoUploads("results")
			})
		}
	})
}

// expectNoUploads waits until a bucket has no upload that has not been finished.
func (p *requestingPod) expectNoUploads(bucket string) {
	p.t.Helper()
	client, err := minio.NewCore(p.store, &minio.Options{Creds: keys.NewStaticV4(tests3.Access, tests3.Secret, ""), Region: tests3.Region})
	if err != nil {
		p.t.Fatal(err)
	}
	var left minio.ListMultipartUploadsResult
	if !eventually(func() bool {
		left, err = client.ListMultipartUploads(p.t.Context(), bucket, "", "", "", "", 100)
		return err == nil && len(left.Uploads) == 0
	}) {
		p.t.Errorf("uploads left in the store: %v, %v", left.Uploads, err)
	}
}

// A container, the program that stores its outputs, or its shim may be killed in the middle: nothing is visible, and no
// upload is left in the store.
func TestRequestedOutputsThatAreKilled(t *testing.T) {
	eachVersionWithTasks(t, func(t *testing.T, node *testnode.Node) {
		importArgoImages(t, node)
		for name, end := range map[string]func(p *requestingPod, k *task){
			"container": func(p *requestingPod, k *task) { kill(p.t, k, syscall.SIGKILL); k.expectCode(128 + 9); k.remove() },
			"program": func(p *requestingPod, k *task) {
				p.signal(syscall.SIGKILL)
				kill(p.t, k, syscall.SIGKILL)
				k.expectCode(128 + 9)
				k.remove()
			},
			"shim": func(p *requestingPod, k *task) {
				if err := syscall.Kill(int(k.connect().ShimPid), syscall.SIGKILL); err != nil {
					p.t.Fatal(err)
				}
				for _, of := range []*task{k, p.leader} {
					of.awaitRemoval()
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				p := newRequestingPod(t, node, map[string]string{"bucket/large": strings.Repeat(lazyData, 10), "results/old": "old"})
				// Two parts are sent while it is written.
				k, err := p.create(p.config(), map[string]string{"in": "s3://bucket/large -> /in/x", "result": "/out/x -> s3://results/x"},
					[]string{"copy", "/in/x", "/out/x", ",", "sleep", "1000"})
				if err != nil {
					t.Fatal(err)
				}
				k.start()
				k.output.await(t, "sleeping")
				p.leaveFile()
				end(p, k)
				if p.stored("results/x") != "" {
					t.Error("something is visible")
				}
				p.expectNoUploads("results")
				p.expectNothingLeft()
			})
		}
	})
}
