package shim

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestLeaveMessage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pods", "1-2", "containers", "main", "abcd")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "x")
	linked := filepath.Join(filepath.Dir(file), "link")
	if err := os.Symlink(elsewhere, linked); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		mount         specs.Mount
		content, want string
		fails         bool
	}{
		"empty":            {specs.Mount{Source: file, Destination: messagePath}, "", "it failed", false},
		"after another":    {specs.Mount{Source: file, Destination: messagePath}, "the guest's", "the guest's\nit failed", false},
		"read-only":        {specs.Mount{Source: file, Destination: messagePath, Options: []string{"rbind", "ro"}}, "", "", false},
		"at another place": {specs.Mount{Source: file, Destination: "/dev/other"}, "", "", false},
		"of a volume":      {specs.Mount{Source: elsewhere, Destination: messagePath}, "", "", false},
		"a link":           {specs.Mount{Source: linked, Destination: messagePath}, "", "", true},
		"a folder":         {specs.Mount{Source: filepath.Dir(file) + "/../main", Destination: messagePath}, "", "", false},
	} {
		for _, at := range []string{file, elsewhere} {
			if err := os.WriteFile(at, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := leaveMessage(&specs.Spec{Mounts: []specs.Mount{{Source: "proc", Destination: "/proc"}, c.mount}}, "it failed")
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
		got, err := os.ReadFile(file)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: the file has %q, %v, want %q", name, got, err, c.want)
		}
		if other, err := os.ReadFile(elsewhere); err != nil || string(other) != c.content {
			t.Errorf("%s: another file has %q, %v", name, other, err)
		}
	}
}
