package shim

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/children"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// Native code in the place of our executor sends anything on the control socket. A start, a copy of argoexec and the
// service of artifacts then fail in words and within their deadline, except after a report of success.
func TestExecutorThatReportsAnything(t *testing.T) {
	frame := func(body string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)))) + body
	}
	type words struct{ start, stage string } // of the errors, empty for none
	for name, c := range map[string]struct {
		sends string
		hold  bool // without closing the socket
		want  words
	}{
		"nothing":           {"", true, words{"deadline", "deadline"}},
		"end":               {"", false, words{"", "EOF"}},
		"success":           {frame("{}"), true, words{"start the executor", ""}},
		"success, repeated": {strings.Repeat(frame("{}"), 1000), true, words{"start the executor", ""}},
		"half":              {frame("{}")[:5], false, words{"start the executor", "unexpected EOF"}},
		"half, held":        {frame("{}")[:5], true, words{"start the executor", "deadline"}},
		"no JSON":           {frame("\xff"), false, words{"start the executor", "decode message"}},
		"zeros":             {strings.Repeat("\x00", 100), false, words{"start the executor", "decode message"}},
		"a long size":       {"\xff\xff\xff\xff" + strings.Repeat("x", 1<<20), true, words{"start the executor", "is too long"}},
		"a long error":      {frame(`{"Error":"no` + strings.Repeat(" more", 80000) + `"}`), true, words{"start the executor", "no more"}},
		"an error number":   {frame(`{"Error":"no","Errno":28}`), true, words{"start the executor", "no"}},
		"another type":      {frame(`{"Error":1}`), true, words{"start the executor", "decode message"}},
	} {
		for way, runs := range map[string]payload{"start": argoExecutor{}, "stage": helper{}, "serve": &artifactServer{artifacts: make([]executor.Artifact, 1)}, "serve requested": &artifactProgram{}} {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				ours, theirs, err := control.Pair()
				if err != nil {
					t.Fatal(err)
				}
				defer ours.Close()
				// Before the start message, too.
				go func() {
					_, _ = theirs.Write([]byte(c.sends))
					if !c.hold {
						theirs.Close()
					}
				}()
				if c.hold {
					defer theirs.Close()
				}
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				began := time.Now()
				err = runs.started(ctx, &worker{Child: children.Child{}, control: ours})
				want := c.want.start
				if way != "start" {
					want = c.want.stage
				}
				if way == "serve" && want == "" {
					want = "0 artifacts of 1"
				}
				if errors.Is(err, os.ErrDeadlineExceeded) {
					err = errors.New("deadline")
				}
				if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
					t.Errorf("got %.200v, want %q", err, want)
				}
				if err != nil && len(err.Error()) > 8<<10 {
					t.Errorf("the error has %d bytes", len(err.Error()))
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
	}
}

// The error of a program that ends without a report names the log that it has written to.
func TestReportsNameTheirLog(t *testing.T) {
	for log, runs := range map[string]payload{"the log of the wait container": helper{}, "the container's own log": &artifactProgram{}} {
		ours, theirs, err := control.Pair()
		if err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		if err := runs.started(t.Context(), &worker{control: ours}); err == nil || !strings.Contains(err.Error(), log+" may have its error") {
			t.Errorf("%T: got %v, want %q", runs, err, log)
		}
		ours.Close()
	}
}
