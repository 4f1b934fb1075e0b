package sandbox

import (
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func ownNamespaces(kinds ...specs.LinuxNamespaceType) *specs.Linux {
	l := &specs.Linux{}
	for _, kind := range kinds {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: kind})
	}
	return l
}

func TestSysctlAllowed(t *testing.T) {
	all := ownNamespaces(specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.PIDNamespace, specs.MountNamespace)
	none := ownNamespaces(specs.PIDNamespace, specs.MountNamespace)
	for _, test := range []struct {
		key   string
		needs specs.LinuxNamespaceType // empty: never allowed
	}{
		{"net.ipv4.ip_unprivileged_port_start", specs.NetworkNamespace},
		{"net.core.somaxconn", specs.NetworkNamespace},
		{"fs.mqueue.msg_max", specs.IPCNamespace},
		{"kernel.shmmax", specs.IPCNamespace},
		{"kernel.sem", specs.IPCNamespace},
		{"kernel.domainname", specs.UTSNamespace},
		{"kernel.hostname", ""}, // the specification has the field hostname
		{"kernel.core_pattern", ""},
		{"kernel.shm", ""},
		{"vm.swappiness", ""},
		{"fs.file-max", ""},
		{"net", ""},
		{"", ""},
		{"net/ipv4/ip_forward", ""},
		{"net.ipv4/../../kernel.core_pattern", ""},
		{"net...kernel.core_pattern", ""},
		{"net..ipv4.ip_forward", ""},
	} {
		err := sysctlAllowed(all, test.key)
		if (err == nil) != (test.needs != "") {
			t.Errorf("%q: %v", test.key, err)
		}
		if err != nil && !strings.Contains(err.Error(), `"`+test.key+`"`) {
			t.Errorf("%q is not named by %v", test.key, err)
		}
		if err := sysctlAllowed(none, test.key); err == nil {
			t.Errorf("%q is allowed without a namespace of its own", test.key)
		}
		if test.needs == "" {
			continue
		}
		if err := sysctlAllowed(ownNamespaces(test.needs), test.key); err != nil {
			t.Errorf("%q: %v", test.key, err)
		}
	}
}

// No allowed key leads out of the folders of the namespaces.
func FuzzSysctlAllowed(f *testing.F) {
	for _, key := range []string{"net.core.somaxconn", "net...kernel", "fs.mqueue.x", "net./..", "net.\x00", "kernel.sem"} {
		f.Add(key)
	}
	all := ownNamespaces(specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace)
	f.Fuzz(func(t *testing.T, key string) {
		if sysctlAllowed(all, key) != nil {
			return
		}
		path := "/" + strings.ReplaceAll(key, ".", "/") + "/"
		if strings.Contains(path, "//") && !strings.HasSuffix(path, "//") || strings.Contains(path, "/../") || strings.Contains(path, "/./") {
			t.Errorf("%q is allowed", key)
		}
	})
}
