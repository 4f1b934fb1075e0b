package sandbox

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func honoured() *specs.Spec {
	return &specs.Spec{
		Process: &specs.Process{Args: []string{"/app.wasm"}, Cwd: "/"},
		Linux:   ownNamespaces(specs.MountNamespace, specs.PIDNamespace),
	}
}

func TestCheckAccepts(t *testing.T) {
	infinite := specs.POSIXRlimit{Type: "RLIMIT_AS", Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY}
	for name, change := range map[string]func(*specs.Spec){
		"least":    func(*specs.Spec) {},
		"no limit": func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{infinite} },
		"usual limits": func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 32, Hard: 64}}
		},
		"no hooks":       func(s *specs.Spec) { s.Hooks = &specs.Hooks{} },
		"no personality": func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux} },
		"pod's namespaces": func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/1/ns/net"})
		},
		"seccomp": func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow} },
	} {
		spec := honoured()
		change(spec)
		if err := Check(spec); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for want, change := range map[string]func(*specs.Spec){
		"process: missing":                      func(s *specs.Spec) { s.Process = nil },
		"linux: missing":                        func(s *specs.Spec) { s.Linux = nil },
		"process.args is empty":                 func(s *specs.Spec) { s.Process.Args = nil },
		"solaris":                               func(s *specs.Spec) { s.Solaris = &specs.Solaris{} },
		"windows":                               func(s *specs.Spec) { s.Windows = &specs.Windows{} },
		"vm":                                    func(s *specs.Spec) { s.VM = &specs.VM{} },
		"zos":                                   func(s *specs.Spec) { s.ZOS = &specs.ZOS{} },
		"freebsd":                               func(s *specs.Spec) { s.FreeBSD = &specs.FreeBSD{} },
		"linux.namespaces user":                 func(s *specs.Spec) { s.Linux = ownNamespaces(specs.MountNamespace, specs.UserNamespace) },
		"linux.namespaces time":                 func(s *specs.Spec) { s.Linux = ownNamespaces(specs.MountNamespace, specs.TimeNamespace) },
		"linux.namespaces mount with a path":    func(s *specs.Spec) { s.Linux.Namespaces[0].Path = "/proc/1/ns/mnt" },
		"linux.namespaces lacks mount":          func(s *specs.Spec) { s.Linux = ownNamespaces(specs.PIDNamespace) },
		"linux.namespaces odd is unknown":       func(s *specs.Spec) { s.Linux = ownNamespaces(specs.MountNamespace, "odd") },
		"linux.intelRdt":                        func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} },
		"linux.personality":                     func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32} },
		`process.rlimits names "RLIMIT_UNHEARD`: func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_UNHEARD"}} },
		"process.rlimits RLIMIT_AS of 4096":     func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_AS", Soft: 4096}} },
	} {
		spec := honoured()
		change(spec)
		if err := Check(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want something with %q", err, want)
		}
	}
}

// Check accepts each kind of hook or refuses it by name. It refuses a hook of any kind that cannot be run.
func TestCheckHooks(t *testing.T) {
	refused := map[string]bool{"StartContainer": true}
	hooks := reflect.TypeFor[specs.Hooks]()
	check := func(kind int, hook specs.Hook) error {
		spec := honoured()
		spec.Hooks = &specs.Hooks{}
		reflect.ValueOf(spec.Hooks).Elem().Field(kind).Set(reflect.ValueOf([]specs.Hook{hook}))
		return Check(spec)
	}
	never := 0
	for i := range hooks.NumField() {
		name := hooks.Field(i).Name
		if err := check(i, specs.Hook{Path: "/bin/true"}); (err != nil) != refused[name] || err != nil && !strings.Contains(strings.ToLower(err.Error()), strings.ToLower("hooks."+name)) {
			t.Errorf("%s: %v", name, err)
		}
		for _, hook := range []specs.Hook{{Path: "true"}, {Path: "/bin/true", Timeout: &never}} {
			if err := check(i, hook); err == nil || !strings.Contains(err.Error(), "hooks.") {
				t.Errorf("%s %+v: %v", name, hook, err)
			}
		}
	}
}

// This test fails when a new version of the specification has a new field: support or refuse the field,
// then add it here.
func TestEveryFieldIsKnown(t *testing.T) {
	for kind, known := range map[reflect.Type]string{
		reflect.TypeFor[specs.Spec]():           "Version Process Root Hostname Domainname Mounts Hooks Annotations Linux Solaris Windows VM ZOS FreeBSD",
		reflect.TypeFor[specs.Hooks]():          "Prestart CreateRuntime CreateContainer StartContainer Poststart Poststop",
		reflect.TypeFor[specs.Mount]():          "Destination Type Source Options UIDMappings GIDMappings",
		reflect.TypeFor[specs.LinuxNamespace](): "Type Path",
		reflect.TypeFor[specs.User]():           "UID GID Umask AdditionalGids Username",
		reflect.TypeFor[specs.Process]():        "Terminal ConsoleSize User Args CommandLine Env Cwd Capabilities Rlimits NoNewPrivileges ApparmorProfile OOMScoreAdj Scheduler SelinuxLabel IOPriority ExecCPUAffinity",
		reflect.TypeFor[specs.Linux]():          "UIDMappings GIDMappings Sysctl Resources CgroupsPath Namespaces Devices NetDevices Seccomp RootfsPropagation MaskedPaths ReadonlyPaths MountLabel IntelRdt MemoryPolicy Personality TimeOffsets",
		reflect.TypeFor[specs.LinuxResources](): "Devices Memory CPU Pids BlockIO HugepageLimits Network Rdma Unified",
	} {
		var names []string
		for i := range kind.NumField() {
			names = append(names, kind.Field(i).Name)
		}
		if got := strings.Join(names, " "); got != known {
			t.Errorf("%v has the fields\n%s, known are\n%s", kind, got, known)
		}
	}
}

// Check never panics for any text that decodes as a specification.
func FuzzCheck(f *testing.F) {
	seed, err := json.Marshal(honoured())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"process":{"args":["a"],"rlimits":[{"type":"RLIMIT_AS","soft":1}]},"linux":{"namespaces":[{"type":"mount"},{"type":"user"}]}}`))
	f.Add([]byte(`{"hooks":{"poststop":[{}]},"linux":{"personality":{}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var spec specs.Spec
		if json.Unmarshal(text, &spec) != nil {
			return
		}
		if err := Check(&spec); err == nil && (len(spec.Process.Args) == 0 || len(spec.Linux.Namespaces) == 0 || spec.Linux.IntelRdt != nil) {
			t.Errorf("accepted: %s", text)
		}
	})
}
