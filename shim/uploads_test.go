package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// outputsOf is an order with an object and a folder as outputs, and the longest texts and certificates that an order can have.
func outputsOf(t *testing.T) control.Serve {
	t.Helper()
	out := func(name, key string) control.ServedArtifact {
		return control.ServedArtifact{Artifact: request.Artifact{Name: name, Output: true, Folder: strings.HasSuffix(key, "/"), At: request.Place{Bucket: "bucket", Key: key}}}
	}
	long := out("long", "long")
	long.Access.AccessKey = strings.Repeat("\x01", 511<<10)
	order := control.Serve{
		Authorities: [][]byte{make([]byte, maxAuthorities)},
		Mounts:      []control.ServedMount{{Artifacts: []control.ServedArtifact{out("one", "one"), out("all", "all/"), long}}},
	}
	if err := order.Check(); err != nil {
		t.Fatal(err)
	}
	return order
}

// Whatever a program that has been taken over says of its uploads, what is remembered fits into an order to abort them.
func TestUploadsAreBounded(t *testing.T) {
	order := outputsOf(t)
	for name, of := range map[string]func(i int) control.Upload{
		"many": func(i int) control.Upload {
			return control.Upload{Artifact: "one", Bucket: "bucket", Key: "one", ID: fmt.Sprint(i)}
		},
		"long ids": func(i int) control.Upload {
			return control.Upload{Artifact: "one", Bucket: "bucket", Key: "one", ID: fmt.Sprint(i, strings.Repeat("\x01", 4<<10))}
		},
		"escaped keys": func(i int) control.Upload {
			return control.Upload{Artifact: "all", Bucket: "bucket", Key: fmt.Sprint("all/", i, strings.Repeat("<", 4<<10)), ID: "x"}
		},
		"very long": func(i int) control.Upload {
			return control.Upload{Artifact: "all", Bucket: "bucket", Key: fmt.Sprint("all/", i, strings.Repeat("\xff", 20<<10)), ID: "x"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var all uploads
			remembered := 0
			for i := range 3000 {
				if all.note(order, of(i)) {
					remembered++
				}
			}
			order.Abort = all.left()
			if len(order.Abort) != remembered || remembered < 5 || remembered > mostUploads {
				t.Errorf("%d of 3000 are remembered, and %d are left", remembered, len(order.Abort))
			}
			if got := send(t, order); len(got.Abort) != remembered {
				t.Errorf("the program got %d uploads of %d", len(got.Abort), remembered)
			}
			for i := range 3000 {
				u := of(i)
				u.Ended = true
				all.note(order, u)
			}
			if len(all.left()) > 0 || all.size != 0 {
				t.Errorf("%d bytes are left", all.size)
			}
		})
	}
}

// Only uploads of the container's own outputs are aborted with their credentials.
func TestUploadsOfOthers(t *testing.T) {
	order := outputsOf(t)
	var all uploads
	for _, u := range []control.Upload{
		{Artifact: "none", Bucket: "bucket", Key: "one", ID: "x"}, {Artifact: "one", Bucket: "others", Key: "one", ID: "x"},
		{Artifact: "one", Bucket: "bucket", Key: "one/more", ID: "x"}, {Artifact: "all", Bucket: "bucket", Key: "other", ID: "x"},
	} {
		if all.note(order, u) {
			t.Errorf("%+v is remembered", u)
		}
	}
	kept := []control.Upload{{Artifact: "one", Bucket: "bucket", Key: "one", ID: "x"}, {Artifact: "all", Bucket: "bucket", Key: "all/a", ID: "x"}}
	for _, u := range append(kept, kept...) {
		if !all.note(order, u) {
			t.Errorf("%+v is not remembered", u)
		}
	}
	for _, u := range kept {
		if !slices.Contains(all.left(), u) {
			t.Errorf("%+v is not remembered", u)
		}
	}
	if text, _ := json.Marshal(all.left()); all.size > len(text) {
		t.Errorf("%d bytes count as %d", len(text), all.size)
	}
}

// The reports end with the program's answer, or with the program.
func TestListen(t *testing.T) {
	for name, tc := range map[string]struct {
		last *control.Report
		want string
	}{
		"answer":    {&control.Report{}, ""},
		"an error":  {&control.Report{Error: "store output x"}, "store output x"},
		"no answer": {nil, "has ended"},
	} {
		ours, theirs, err := control.Pair()
		if err != nil {
			t.Fatal(err)
		}
		upload := control.Upload{Artifact: "one", Bucket: "bucket", Key: "one", ID: "x"}
		err = theirs.Report(control.Report{Upload: &upload})
		if tc.last != nil {
			err = errors.Join(err, theirs.Report(*tc.last))
		}
		if err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		r := &requested{order: outputsOf(t), finished: make(chan error, 1)}
		r.listen(&process{worker: &worker{control: ours}})
		if err := <-r.finished; (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v", name, err)
		}
		if left := r.uploads.left(); len(left) != 1 || left[0] != upload {
			t.Errorf("%s: left are %v", name, left)
		}
		ours.Close()
	}
}
