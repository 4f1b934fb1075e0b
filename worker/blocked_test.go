package worker

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testworker"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// A signal ends a guest that waits in the kernel, for input or for a clock.
func TestSignalEndsABlockedGuest(t *testing.T) {
	program, err := testworker.Path()
	if err != nil {
		t.Fatal(err)
	}
	code := filepath.Join(t.TempDir(), "code")
	if err := testworker.Compile(t.Context(), testguest.Build(t, "probe"), code); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		told string // by the guest, before it waits
	}{
		"reading":  {[]string{"probe", "cat"}, "x"},
		"sleeping": {[]string{"probe", "sleep", "1000"}, "sleeping\n"},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs, err := control.Pair()
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			guest := exec.Command(program)
			guest.Env, guest.ExtraFiles = []string{control.RoleEnv + "=" + control.RoleRun}, []*os.File{theirs.File}
			input, inputErr := guest.StdinPipe()
			output, outputErr := guest.StdoutPipe()
			if inputErr != nil || outputErr != nil {
				t.Fatal(inputErr, outputErr)
			}
			err = guest.Start()
			theirs.Close()
			if err != nil {
				t.Fatal(err)
			}
			defer guest.Process.Kill()
			if err := ours.Run(control.Run{Code: code, Root: t.TempDir(), Args: test.args, Function: start}); err != nil {
				t.Fatal(err)
			}
			if report, err := ours.Report(); err != nil || report.Error != "" {
				t.Fatal(err, report.Error)
			}
			if err := ours.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(input, "x"); err != nil {
				t.Fatal(err)
			}
			told := make([]byte, len(test.told))
			if _, err := io.ReadFull(output, told); err != nil || string(told) != test.told {
				t.Fatalf("it says %q, %v", told, err)
			}
			if err := guest.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			guest.Wait()
			if code := guest.ProcessState.ExitCode(); code != 143 {
				t.Errorf("it ended with %v", guest.ProcessState)
			}
		})
	}
}
