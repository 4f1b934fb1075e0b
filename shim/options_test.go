package shim

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func testDaemon() *daemon {
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	return &daemon{log: logrus.NewEntry(logger)}
}

func wrapped(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := wrap(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSettingsFromAFile(t *testing.T) {
	d := testDaemon()
	file := write(t, "config.toml", "max_module_size = 7\nlog_level = \"debug\"\n")
	s, err := d.settings(wrapped(t, &runtimeoptions.Options{ConfigPath: file, ConfigBody: []byte("max_module_size = 8")}))
	if err != nil || s.MaxModuleSize != 7 || s.Source != file {
		t.Errorf("got %+v, %v", s, err)
	}
	if d.log.Logger.GetLevel() != logrus.DebugLevel {
		t.Errorf("the level is %v", d.log.Logger.GetLevel())
	}
	if err := os.WriteFile(file, []byte("max_module_size = 9"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A correction of the file takes effect without a restart.
	if s, err := d.settings(wrapped(t, &runtimeoptions.Options{ConfigPath: file})); err != nil || s.MaxModuleSize != 9 {
		t.Errorf("got %+v, %v", s, err)
	}
}

// Both type URLs of a message are accepted: typeurl's without a host and protobuf's with one.
func TestSettingsTakeBothFormsOfATypeURL(t *testing.T) {
	a := wrapped(t, &runtimeoptions.Options{ConfigBody: []byte("max_module_size = 7")})
	a.TypeUrl = "type.googleapis.com/" + a.TypeUrl
	if s, err := testDaemon().settings(a); err != nil || s.MaxModuleSize != 7 {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestSettingsRefuse(t *testing.T) {
	broken := wrapped(t, &runtimeoptions.Options{})
	broken.Value = []byte("\xff")
	for want, a := range map[string]*anypb.Any{
		"decode runtime options":                        broken,
		"containerd.runc.v1.ProcessDetails are unknown": wrapped(t, &options.ProcessDetails{ExecID: "x"}),
		"no such file":                                  wrapped(t, &runtimeoptions.Options{ConfigPath: "/nonexistent/config.toml"}),
		"not an absolute path":                          wrapped(t, &runtimeoptions.Options{ConfigPath: "config.toml"}),
		"unknown key":                                   wrapped(t, &runtimeoptions.Options{ConfigBody: []byte("SystemdCgroup = true")}),
	} {
		if _, err := testDaemon().settings(a); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want something with %q", err, want)
		}
	}
}

// The stock shim gets runc's options or none, with the cgroup driver that the container has.
func TestNativeOptions(t *testing.T) {
	systemd := write(t, "config.toml", "systemd_cgroup = true")
	for name, test := range map[string]struct {
		given       *anypb.Any
		cgroupsPath string
		want        *options.Options
	}{
		"none":         {nil, "/ns/id", nil},
		"runc's":       {wrapped(t, &options.Options{Root: "/r", SystemdCgroup: true}), "/ns/id", &options.Options{Root: "/r", SystemdCgroup: true}},
		"cgroupfs":     {wrapped(t, &runtimeoptions.Options{ConfigBody: []byte("systemd_cgroup = false")}), "/ns/id", &options.Options{}},
		"systemd":      {wrapped(t, &runtimeoptions.Options{ConfigPath: systemd}), "", &options.Options{SystemdCgroup: true}},
		"by its slice": {wrapped(t, &runtimeoptions.Options{ConfigBody: []byte("systemd_cgroup = false")}), "kubepods.slice:cri-containerd:id", &options.Options{SystemdCgroup: true}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := write(t, "config.json", fmt.Sprintf(`{"ociVersion":"1.2.0","linux":{"cgroupsPath":%q}}`, test.cgroupsPath))
			got, err := testDaemon().nativeOptions(test.given, filepath.Dir(spec))
			if err != nil {
				t.Fatal(err)
			}
			if test.want == nil {
				if got != nil {
					t.Errorf("got %v", got)
				}
				return
			}
			var runc options.Options
			if err := got.UnmarshalTo(&runc); err != nil || !proto.Equal(&runc, test.want) {
				t.Errorf("got %v, %v, want %v", &runc, err, test.want)
			}
		})
	}
	if _, err := testDaemon().nativeOptions(wrapped(t, &runtimeoptions.Options{ConfigPath: "/nonexistent"}), t.TempDir()); err == nil {
		t.Error("a missing file is no error")
	}
}
