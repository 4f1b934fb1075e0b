package sandbox

import (
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/hooks"
)

// Check refuses a specification with a field that a Wasm container's launch
// cannot honour, and names that field. A nil error means that every field will
// be honoured.
func Check(spec *specs.Spec) error {
	if spec.Process == nil {
		return errors.New("process: missing")
	}
	if spec.Linux == nil {
		return errors.New("linux: missing")
	}
	for _, check := range []func(*specs.Spec) error{checkPlatform, checkHooks, checkNamespaces, checkLinux, checkPids} {
		if err := check(spec); err != nil {
			return err
		}
	}
	return CheckProcess(spec.Process)
}

// refused is one field that must be absent.
type refused struct {
	field string
	set   bool
}

func checkAbsent(fields []refused) error {
	for _, f := range fields {
		if f.set {
			return fmt.Errorf("%s is not supported in Wasm containers: remove it, or run the container with the runc runtime", f.field)
		}
	}
	return nil
}

func checkPlatform(spec *specs.Spec) error {
	return checkAbsent([]refused{
		{"solaris", spec.Solaris != nil},
		{"windows", spec.Windows != nil},
		{"vm", spec.VM != nil},
		{"zos", spec.ZOS != nil},
		{"freebsd", spec.FreeBSD != nil},
	})
}

func checkHooks(spec *specs.Spec) error { return hooks.Check(spec.Hooks) }

func checkNamespaces(spec *specs.Spec) error {
	hasMount := false
	for _, ns := range spec.Linux.Namespaces {
		switch ns.Type {
		case specs.UserNamespace:
			return errors.New("linux.namespaces user is not supported in Wasm containers: run the pod with hostUsers: true")
		case specs.TimeNamespace:
			return errors.New("linux.namespaces time is not supported in Wasm containers")
		case specs.MountNamespace:
			if ns.Path != "" {
				return errors.New("linux.namespaces mount with a path is not supported in Wasm containers")
			}
			hasMount = true
		default:
			if _, ok := cloneFlags[ns.Type]; !ok {
				return fmt.Errorf("linux.namespaces %s is unknown", ns.Type)
			}
		}
	}
	if !hasMount {
		return errors.New("linux.namespaces lacks mount: a Wasm container always has a mount namespace of its own")
	}
	return nil
}

func checkLinux(spec *specs.Spec) error {
	l := spec.Linux
	return checkAbsent([]refused{
		{"linux.uidMappings", len(l.UIDMappings) > 0},
		{"linux.gidMappings", len(l.GIDMappings) > 0},
		{"linux.timeOffsets", len(l.TimeOffsets) > 0},
		{"linux.intelRdt", l.IntelRdt != nil},
		{"linux.memoryPolicy", l.MemoryPolicy != nil},
		{"linux.netDevices", len(l.NetDevices) > 0},
		{"linux.personality", l.Personality != nil && (l.Personality.Domain != specs.PerLinux || len(l.Personality.Flags) > 0)},
	})
}

// CheckProcess refuses a process, the container's or that of an exec, with a
// field that cannot be honoured.
func CheckProcess(p *specs.Process) error {
	if len(p.Args) == 0 {
		return errors.New("process.args is empty: the image has no entry point and no command was given")
	}
	if err := checkAbsent([]refused{
		{"process.commandLine", p.CommandLine != ""},
		{"process.ioPriority", p.IOPriority != nil},
		{"process.scheduler", p.Scheduler != nil},
		{"process.execCPUAffinity", p.ExecCPUAffinity != nil},
	}); err != nil {
		return err
	}
	return checkRlimits(p)
}
