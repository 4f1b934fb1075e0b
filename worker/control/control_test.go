package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// frame returns a body after the size that the message claims to have.
func frame(size uint32, body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, size), body...)
}

func TestSendReceive(t *testing.T) {
	want := Run{
		Code: "/module", Root: "/rootfs", Args: []string{"/app.wasm", "", "a b", "\x00", "ü"}, Env: []string{"A=1"},
		Cwd: "/", Function: "_start", MemoryLimit: 1 << 40,
	}
	var pipe bytes.Buffer
	for range 2 {
		if err := send(&pipe, want, maxMessage); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		var got Run
		if err := receive(&pipe, &got, maxMessage); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if err := receive(&pipe, &Run{}, maxMessage); err != io.EOF {
		t.Errorf("after the last message: %v", err)
	}
}

func TestReceiveRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		input []byte
		want  string
	}{
		"half a size":      {[]byte{0, 0}, "unexpected EOF"},
		"no body":          {frame(2, ""), "unexpected EOF"},
		"half a body":      {frame(20, `{"Error":`), "unexpected EOF"},
		"too long":         {frame(maxReport+1, ""), "524289 bytes is too long"},
		"as long as it is": {[]byte("\xff\xff\xff\xff"), "4294967295 bytes is too long"},
		"empty":            {frame(0, ""), "decode message"},
		"not JSON":         {frame(4, "\x00\x01\x02\x03"), "decode message"},
		"other type":       {frame(11, `{"Error":1}`), "decode message"},
		"more than one":    {frame(4, "{}{}"), "decode message"},
	} {
		t.Run(name, func(t *testing.T) {
			var report Report
			err := receive(bytes.NewReader(test.input), &report, maxReport)
			if err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want something with %q", err, test.want)
			}
		})
	}
}

func TestSendRefusesTooMuch(t *testing.T) {
	var pipe bytes.Buffer
	err := send(&pipe, Run{Cwd: strings.Repeat("x", maxMessage)}, maxMessage)
	if err == nil || !strings.Contains(err.Error(), "too long") || pipe.Len() > 0 {
		t.Errorf("got %v and %d bytes", err, pipe.Len())
	}
}

// The daemon needs little memory for the reports of a hostile worker, and accepts the longest of a worker of ours.
func TestReportOfAnySize(t *testing.T) {
	try := func(speak func(Worker)) (Report, uint64, error) {
		daemon, worker, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer daemon.Close()
		go func() {
			defer worker.Close()
			speak(worker)
		}()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		report, err := daemon.Report()
		runtime.ReadMemStats(&after)
		return report, after.TotalAlloc - before.TotalAlloc, err
	}
	const most = 48 << 20 // of all allocations together
	for name, body := range map[string]string{
		"names":  `{"Module":{"Functions":[` + strings.Repeat(`"",`, (maxReport-40)/3) + `""]}}`,
		"nested": `{"x":[` + strings.Repeat(strings.Repeat("[", 9000)+strings.Repeat("]", 9000)+",", maxReport/18001-1) + `1]}`,
		"error":  `{"Error":"` + strings.Repeat(`\u0001`, (maxReport-20)/6) + `"}`,
		"longer": `{"Module":{"Functions":[` + strings.Repeat(`"",`, 5<<20) + `""]}}`,
	} {
		// The worker goes on, with a second report and without end.
		report, took, err := try(func(w Worker) {
			message := frame(uint32(len(body)), body)
			for {
				if _, err := w.Write(message); err != nil {
					return
				}
			}
		})
		if tooLong := len(body) > maxReport; (err != nil) != tooLong || tooLong && !strings.Contains(err.Error(), "is too long") {
			t.Errorf("%s: got %v", name, err)
		}
		if took > most {
			t.Errorf("%s: the report of %d bytes took %d bytes of memory", name, len(body), took)
		}
		if err := report.Err(); err != nil && len(err.Error()) > 2*maxError {
			t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
		}
	}
	long := strings.Repeat("\x01", maxMessage)
	var names []string
	for range 2 * mostFunctions {
		names = append(names, strings.Repeat("<", functionsBytes/mostFunctions))
	}
	sent := Report{Error: long, Refusal: "refused: " + long, Module: &Module{Name: strings.Repeat("x", 1000), Tenant: "t"}}
	sent.Module.SetFunctions(names)
	got, _, err := try(func(w Worker) {
		if err := w.Report(sent); err != nil {
			t.Error(err)
		}
	})
	if err != nil || !strings.HasPrefix(got.Refusal, "refused: \x01") || len(got.Module.Functions) != mostFunctions {
		t.Errorf("the longest report: %v, %d functions", err, len(got.Module.Functions))
	}
}

// Only the start byte starts a guest.
func TestAwaitStart(t *testing.T) {
	daemon, worker, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	defer worker.Close()
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	if err := worker.AwaitStart(); err != nil {
		t.Error(err)
	}
	for _, input := range []string{"", "x", "\x00", "S"} {
		if err := awaitStart(strings.NewReader(input)); err == nil {
			t.Errorf("%q started a guest", input)
		}
	}
}

// receive returns a report or an error for any input of a hostile worker; a report can be sent again
// unchanged.
func FuzzReceive(f *testing.F) {
	for _, seed := range [][]byte{
		nil, {0, 0}, frame(2, "{}"), frame(2, ""), frame(20, `{"Error":`), frame(maxMessage+1, "{}"), frame(1<<31, ""),
		frame(13, `{"Error":"x"}`), frame(30, `{"Module":{"Functions":["a"]}}`), frame(4, "null"), frame(2, "[]"),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		var got, again Report
		in := bytes.NewReader(input)
		if err := receive(in, &got, maxReport); err != nil {
			return
		}
		if size := int(binary.BigEndian.Uint32(input)); len(input)-in.Len() != 4+size {
			t.Errorf("read %d bytes of a message of 4+%d", len(input)-in.Len(), size)
		}
		var pipe bytes.Buffer
		if err := send(&pipe, got, 2*maxReport); err != nil {
			t.Fatal(err)
		}
		if err := receive(&pipe, &again, 2*maxReport); err != nil {
			t.Fatal(err)
		}
		if got.Error != again.Error || (got.Module == nil) != (again.Module == nil) {
			t.Errorf("%+v became %+v", got, again)
		}
	})
}
