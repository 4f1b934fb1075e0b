package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// InVolume has the container's rights in a volume: it can do only what the container can do itself.
func TestInVolumeHasTheContainersRights(t *testing.T) {
	root := specs.User{}
	user := specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{2000}}
	override := &specs.LinuxCapabilities{Bounding: []string{"CAP_DAC_OVERRIDE"}, Permitted: []string{"CAP_DAC_OVERRIDE"}, Effective: []string{"CAP_DAC_OVERRIDE"}}
	for _, c := range []struct {
		name    string
		owner   int // user and group of the folder
		mode    uint32
		options []string
		process specs.Process
		want    error
	}{
		{"writable", 1000, 0o700, []string{"rbind", "rw"}, specs.Process{User: user}, nil},
		{"by group", 2000, 0o770, []string{"bind"}, specs.Process{User: user}, nil},
		{"for everybody", 0, 0o777, []string{"rbind"}, specs.Process{User: user}, nil},
		{"root", 0, 0o700, []string{"rbind"}, specs.Process{User: root}, nil},
		{"read-only", 1000, 0o777, []string{"rbind", "ro"}, specs.Process{User: user}, unix.EROFS},
		{"recursively read-only", 1000, 0o777, []string{"rbind", "rro"}, specs.Process{User: user}, unix.EROFS},
		{"read-only for root", 0, 0o777, []string{"bind", "ro"}, specs.Process{User: root, Capabilities: override}, unix.EROFS},
		{"another's", 0, 0o755, []string{"rbind"}, specs.Process{User: user}, unix.EACCES},
		{"another's, with a capability that goes at exec", 0, 0o755, []string{"rbind"}, specs.Process{User: user, Capabilities: override}, unix.EACCES},
		{"another's, by root", 1000, 0o700, []string{"rbind"}, specs.Process{User: root}, unix.EACCES},
		{"another's, by root with the capability", 1000, 0o700, []string{"rbind"}, specs.Process{User: root, Capabilities: override}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := t.TempDir()
			if err := errors.Join(os.Chown(source, c.owner, c.owner), unix.Chmod(source, c.mode)); err != nil {
				t.Fatal(err)
			}
			m := specs.Mount{Destination: "/volume", Source: source, Type: "bind", Options: c.options}
			err := InVolume(m, &c.process, func(root *os.File) error { return unix.Mkdirat(int(root.Fd()), "made", 0o755) })
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			var st unix.Stat_t
			err = unix.Stat(filepath.Join(source, "made"), &st)
			if made := err == nil; made != (c.want == nil) {
				t.Errorf("it was made: %v (%v)", made, err)
			}
			if err == nil && st.Uid != c.process.User.UID {
				t.Errorf("it belongs to user %d", st.Uid)
			}
		})
	}
}

func TestInVolumeRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]specs.Mount{
		"a file":          {Source: file, Type: "bind"},
		"nothing":         {Source: filepath.Join(dir, "none"), Type: "bind"},
		"a file system":   {Source: "tmpfs", Type: "tmpfs"},
		"an id-mapped":    {Source: dir, Type: "bind", UIDMappings: []specs.LinuxIDMapping{{Size: 1}}},
		"unknown options": {Source: dir, Type: "bind", Options: []string{"nonsense"}},
	} {
		err := InVolume(m, &specs.Process{}, func(*os.File) error {
			t.Errorf("%s was opened", name)
			return nil
		})
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
