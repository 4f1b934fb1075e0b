package shim

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
	"github.com/wasmshim/containerd-shim-wasm/config"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// asking is a container with 64 artifacts, each with the options of its own.
func asking(process specs.Process, mounts []specs.Mount, options func(i int) string) *container {
	annotations := map[string]string{}
	for i := range 64 {
		annotations[fmt.Sprintf("%sa%d", request.Prefix, i)] = fmt.Sprintf("s3://bucket/k%d?%s -> /in/%d", i, options(i), i)
	}
	return &container{settings: config.Default(), spec: &specs.Spec{Process: &process, Mounts: mounts, Annotations: annotations}}
}

// A pod chooses what its Secrets and variables have, and the daemon reads and sends it: it takes bounded memory.
func TestCredentialsAreBounded(t *testing.T) {
	secrets := func(keys func(i int) map[string]string) *container {
		var mounts []specs.Mount
		for i := range 64 {
			all := keys(i)
			for _, name := range []string{"accesskey", "secretkey"} {
				if all[name] == "" {
					all[name] = "x"
				}
			}
			mounts = append(mounts, volumeOf(t, "kubernetes.io~secret", fmt.Sprintf("s%d", i), fmt.Sprintf("/s%d", i), all))
		}
		return asking(specs.Process{}, mounts, func(i int) string { return fmt.Sprintf("credentials=secret:s%d", i) })
	}
	long := func(n int) string { return strings.Repeat("\x01", n) }
	for name, tc := range map[string]struct {
		c    *container
		want string // in the error, "" for none
	}{
		"keys of 1 MiB":        {secrets(func(int) map[string]string { return map[string]string{"sessiontoken": long(1 << 20)} }), "more than the 8192 bytes"},
		"authorities of 1 MiB": {secrets(func(int) map[string]string { return map[string]string{"ca.crt": long(1 << 20)} }), "more than the 262144 bytes"},
		"many authorities":     {secrets(func(i int) map[string]string { return map[string]string{"ca.crt": fmt.Sprint(i, long(250<<10))} }), "have more than 2097152 bytes"},
		"the same authorities": {secrets(func(int) map[string]string { return map[string]string{"ca.crt": long(250 << 10)} }), ""},
		"many keys of 8 KiB": {secrets(func(int) map[string]string {
			return map[string]string{"accesskey": long(8 << 10), "secretkey": long(8 << 10)}
		}), "bytes together: 524288 are allowed"},
		"usual keys":                {secrets(func(int) map[string]string { return map[string]string{"sessiontoken": long(4 << 10)} }), ""},
		"a long variable":           {asking(specs.Process{Env: []string{"AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=" + long(100<<10)}}, nil, func(int) string { return "credentials=environment" }), "8192 are allowed"},
		"a volume for all":          {asking(specs.Process{}, []specs.Mount{volumeOf(t, "kubernetes.io~secret", "s", "/s", map[string]string{"accesskey": "x", "secretkey": "x", "ca.crt": long(250 << 10)})}, func(int) string { return "credentials=secret:s" }), ""},
		"the node's authorities":    {asking(specs.Process{}, nil, func(int) string { return "credentials=anonymous" }), ""},
		"annotations that are long": {asking(specs.Process{}, nil, func(int) string { return "credentials=anonymous&versionId=" + strings.Repeat("x", 20<<10) }), "bytes together: 524288 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r, err := tc.c.request()
			if err == nil {
				_ = send(t, r.order)
			}
			runtime.ReadMemStats(&after)
			if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 64 {
				t.Errorf("it has allocated %d MiB", n)
			}
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %.300v, want %q", err, tc.want)
			}
		})
	}
}

// send sends an order and returns what arrives.
func send(t *testing.T, order control.Serve) control.Serve {
	t.Helper()
	ours, theirs, err := control.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	got := make(chan control.Serve, 1)
	go func() {
		order, err := theirs.Serve()
		if err != nil {
			t.Error(err)
		}
		got <- order
	}()
	runs := &artifactProgram{serves: &order}
	if err := runs.order(&worker{control: ours}); err != nil {
		t.Error(err)
		theirs.Close()
	}
	if runs.serves != nil {
		t.Error("the daemon keeps the order")
	}
	return <-got
}

// While the artifacts are served, the daemon keeps of the order what aborts uploads, and nothing else.
func TestOrderIsDropped(t *testing.T) {
	ca := func(text string) specs.Mount {
		return volumeOf(t, "kubernetes.io~secret", text, "/"+text, map[string]string{"accesskey": text, "secretkey": "x", "ca.crt": text})
	}
	c := &container{settings: config.Default(), spec: &specs.Spec{Process: &specs.Process{}, Mounts: []specs.Mount{ca("in"), ca("out")}, Annotations: map[string]string{
		request.Prefix + "a": "s3://bucket/a?credentials=secret:in -> /in/a",
		request.Prefix + "b": "/results/b -> s3://bucket/b?credentials=secret:out",
	}}}
	r, err := c.request()
	if err != nil {
		t.Fatal(err)
	}
	if got := send(t, r.order); len(got.Mounts) != 2 || string(got.AuthoritiesOf(got.Mounts[0].Artifacts[0].Access)) != "in" {
		t.Errorf("the program got %+v", got)
	}
	kept := forAborts(r.order)
	if len(kept.Mounts) != 1 || string(kept.AuthoritiesOf(kept.Mounts[0].Artifacts[0].Access)) != "out" || bytes.Contains(bytes.Join(kept.Authorities, nil), []byte("in")) {
		t.Errorf("kept is %+v", kept)
	}
	if kept.Mounts[0].Artifacts[0].Access.AccessKey != "out" {
		t.Errorf("kept is %+v", kept)
	}
}
