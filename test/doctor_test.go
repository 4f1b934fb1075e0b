package test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/doctor"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// askDoctor runs our binary's doctor on a containerd and returns its rows. The exit code of doctor must agree
// with the rows.
func askDoctor(t *testing.T, address string) []doctor.Result {
	t.Helper()
	output, err := shimCommand(t, "doctor", "--json", "--address", address).Output()
	exit := new(exec.ExitError)
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("doctor: %v: %s", err, output)
	}
	var rows []doctor.Result
	if jsonErr := json.Unmarshal(output, &rows); jsonErr != nil {
		t.Fatalf("doctor printed %q: %v", output, jsonErr)
	}
	if doctor.Healthy(rows) != (err == nil) {
		t.Errorf("doctor: %v after %+v", err, rows)
	}
	return rows
}

func rowOf(t *testing.T, rows []doctor.Result, check string) doctor.Result {
	t.Helper()
	i := slices.IndexFunc(rows, func(r doctor.Result) bool { return r.Check == check })
	if i < 0 {
		t.Fatalf("no row %q in %+v", check, rows)
	}
	return rows[i]
}

// On a node on which install has run, doctor finds nothing wrong, its container runs, and nothing is left
// behind.
func TestDoctorOnGoodNode(t *testing.T) {
	for _, version := range testnode.Versions() {
		t.Run("containerd-"+version, func(t *testing.T) {
			node := installedNode(t, version)
			node.NoLeaks(t)
			rows := askDoctor(t, node.Address())
			for _, r := range rows {
				if r.State == doctor.Wrong {
					t.Errorf("%+v", r)
				}
			}
			// These checks do not depend on the machine that runs the tests.
			for _, check := range []string{"containerd", "binary", "runtime", "image pulls", "shim's config", "cgroup driver", "test run"} {
				if r := rowOf(t, rows, check); r.State != doctor.OK {
					t.Errorf("%+v", r)
				}
			}
			if r := rowOf(t, rows, "engine"); !strings.Contains(r.Found, "wasmtime ") || !strings.Contains(r.Found, " for "+goruntime.GOARCH) {
				t.Errorf("%+v", r)
			}
			if got := node.Ctr(t, "namespaces", "ls", "-q").Stdout; strings.Contains(got, "doctor") {
				t.Errorf("the namespaces are %q", got)
			}
			if left, err := filepath.Glob("/run/containerd-shim-wasm-doctor-*"); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			table, err := shimCommand(t, "doctor", "--no-test-run", "--address", node.Address()).Output()
			if err != nil || !strings.Contains(string(table), "runtime ") || strings.Contains(string(table), "test run") {
				t.Errorf("%v: the table is\n%s", err, table)
			}
		})
	}
}

// Each broken thing shows in its own row, with the remedy.
func TestDoctorOnBrokenNode(t *testing.T) {
	for name, test := range map[string]struct {
		version string
		harm    func(t *testing.T, node installation)
		check   string
		state   doctor.State
		found   string
		mend    string
		trial   doctor.State // of the test run
	}{
		"runtime entry missing": {"2.2", func(t *testing.T, node installation) {
			cut(t, node.ConfigPath(), "# BEGIN", "# END")
			node.restart(t)
		}, "runtime", doctor.Wrong, `no runtime "wasm"`, "containerd-shim-wasm-v1 install", doctor.OK},
		"runtime entry not read": {"1.7", func(t *testing.T, node installation) {
			text := node.configuration
			cut(t, node.ConfigPath(), "# BEGIN", "# END")
			node.restart(t)
			if err := os.WriteFile(node.ConfigPath(), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "runtime", doctor.Wrong, `no runtime "wasm"`, "systemctl restart containerd", doctor.OK},
		"config.toml broken": {"2.2", func(t *testing.T, node installation) {
			setConfig(t, node, "cache_dri = '/x'\n")
		}, "shim's config", doctor.Wrong, "cache_dri", "correct " + "CONFIG", doctor.Wrong},
		"cache of anybody": {"2.2", func(t *testing.T, node installation) {
			cache := filepath.Join(t.TempDir(), "cache")
			if err := errors.Join(os.Mkdir(cache, 0o700), os.Chmod(cache, 0o777)); err != nil {
				t.Fatal(err)
			}
			setConfig(t, node, "cache_dir = '"+cache+"'\n")
		}, "cache", doctor.Wrong, "others than root", "chmod 700", ""},
		"shim not on PATH": {"2.2", func(t *testing.T, node installation) {
			if err := os.Remove(node.shim); err != nil {
				t.Fatal(err)
			}
		}, "binary", doctor.Wrong, "no containerd-shim-wasm-v1 on containerd's PATH", "--bin-dir", doctor.Wrong},
		"shim does not run": {"2.1", func(t *testing.T, node installation) {
			if err := os.WriteFile(node.shim, []byte("\x7fELF"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "binary", doctor.Wrong, "does not run", "architecture", doctor.Wrong},
		"no setting for pulls": {"2.4", func(t *testing.T, node installation) {
			cut(t, node.ConfigPath(), localPull, "\n")
			node.restart(t)
		}, "image pulls", doctor.Warning, "wasi/wasm", "install", doctor.OK},
		"verifiers": {"2.4", func(t *testing.T, node installation) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "verify"), nil, 0o755); err != nil {
				t.Fatal(err)
			}
			cut(t, node.ConfigPath(), localPull, "\n")
			extend(t, node.ConfigPath(), "[plugins.'io.containerd.image-verifier.v1.bindir']\nbin_dir = '"+dir+"'\n")
			node.restart(t)
		}, "image pulls", doctor.Warning, "because there are image verifiers in", "linux/wasm", doctor.OK},
		"setting for pulls not read": {"2.4", func(t *testing.T, node installation) {
			if err := os.WriteFile(node.ConfigPath(), []byte(node.configuration), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "image pulls", doctor.Warning, "is newer than the containerd that runs", "systemctl restart", doctor.OK},
	} {
		t.Run(name, func(t *testing.T) {
			node := installedNode(t, test.version)
			test.harm(t, node)
			node.NoLeaks(t)
			rows := askDoctor(t, node.Address())
			mend := strings.ReplaceAll(test.mend, "CONFIG", node.config)
			if got := rowOf(t, rows, test.check); got.State != test.state || !strings.Contains(got.Found, test.found) || !strings.Contains(got.Mend, mend) {
				t.Errorf("the row is %+v", got)
			}
			if got := rowOf(t, rows, "test run"); test.trial != "" && got.State != test.trial {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestDoctorWithoutContainerd(t *testing.T) {
	rows := askDoctor(t, filepath.Join(t.TempDir(), "none.sock"))
	if got := rowOf(t, rows, "containerd"); got.State != doctor.Wrong || !strings.Contains(got.Mend, "--address") {
		t.Errorf("%+v", got)
	}
}

// setConfig writes the shim's own configuration.
func setConfig(t *testing.T, node installation, text string) {
	t.Helper()
	if err := os.WriteFile(node.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// extend adds text to a file.
func extend(t *testing.T, path, text string) {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(before, text...), 0o644); err != nil {
		t.Fatal(err)
	}
}

// cut removes two marks and the text between them from a file; "# " takes their place.
func cut(t *testing.T, path, from, to string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), from)
	_, after, ok2 := strings.Cut(rest, to)
	if !ok1 || !ok2 {
		t.Fatalf("no %q and %q in %s", from, to, text)
	}
	if err := os.WriteFile(path, []byte(before+"# "+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
