//go:build systemd

package incluster

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestSystemdRestarts runs where systemd is process 1 (hack/cgroup2/test.sh): what the tests with
// testsystemd hold against a stand-in, held against the real one.
func TestSystemdRestarts(t *testing.T) {
	const unit, fail = "incluster-test.service", "/run/incluster-test-fails"
	text := "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/test ! -e " + fail + "\n"
	if err := os.WriteFile("/run/systemd/system/"+unit, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	systemctl(t, "daemon-reload")
	systemctl(t, "start", unit)
	r, err := ParseRestart("systemd:"+unit, SystemdSocket)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	started := systemctl(t, "show", "--property=ActiveEnterTimestampMonotonic", unit)
	if err := r.restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := systemctl(t, "show", "--property=ActiveEnterTimestampMonotonic", unit); again == started {
		t.Errorf("it was not restarted: %s", again)
	}
	if err := os.WriteFile(fail, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// More often than systemd allows a unit to fail: each is tried all the same.
	for range 7 {
		if err := r.restart(t.Context()); err == nil || !strings.Contains(err.Error(), `the job's result is "failed"`) {
			t.Errorf("got %v", err)
		}
	}
	if err := os.Remove(fail); err != nil {
		t.Fatal(err)
	}
	if err := r.restart(t.Context()); err != nil {
		t.Error(err)
	}
	r.unit = "no-such.service"
	if err := r.check(t.Context()); err == nil || !strings.Contains(err.Error(), "no unit no-such.service") {
		t.Errorf("got %v", err)
	}
	if err := r.restart(t.Context()); err == nil || !strings.Contains(err.Error(), "no-such.service not found") {
		t.Errorf("got %v", err)
	}
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}
