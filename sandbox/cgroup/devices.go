package cgroup

import (
	"fmt"
	"slices"

	devices "github.com/opencontainers/cgroups/devices/config"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// deviceRules translates linux.resources.devices.
func deviceRules(given []specs.LinuxDeviceCgroup) ([]*devices.Rule, error) {
	var rules []*devices.Rule
	for i, d := range given {
		field := fmt.Sprintf("linux.resources.devices[%d]", i)
		rule := &devices.Rule{
			Type: devices.WildcardDevice, Major: devices.Wildcard, Minor: devices.Wildcard,
			Permissions: devices.Permissions(d.Access), Allow: d.Allow,
		}
		switch d.Type {
		case "", "a":
		case "b", "c":
			rule.Type = devices.Type(d.Type[0])
		default:
			return nil, fmt.Errorf("%s.type: %q is neither a, b nor c", field, d.Type)
		}
		if d.Major != nil {
			rule.Major = *d.Major
		}
		if d.Minor != nil {
			rule.Minor = *d.Minor
		}
		if rule.Permissions.IsEmpty() || !onlyPermissions(d.Access) {
			return nil, fmt.Errorf("%s.access: %q is no combination of r, w and m", field, d.Access)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

func onlyPermissions(access string) bool {
	return !slices.ContainsFunc([]byte(access), func(c byte) bool { return c != 'r' && c != 'w' && c != 'm' })
}

// defaultDevices returns the rules that runc appends to those of every container
// (AllowedDevices in libcontainer/specconv). They allow the devices that the runtime
// spec promises (config-linux.md#default-devices), mknod of any device without
// opening it, pseudo terminals, and the tun device, which users rely on. A default
// device has no rule here if the spec has a device of its own at the same path.
func defaultDevices(spec *specs.Spec) []*devices.Rule {
	rules := []*devices.Rule{
		device(devices.CharDevice, devices.Wildcard, devices.Wildcard, "m"),
		device(devices.BlockDevice, devices.Wildcard, devices.Wildcard, "m"),
	}
	for _, d := range []struct {
		path         string
		major, minor int64
	}{
		{"/dev/null", 1, 3},
		{"/dev/random", 1, 8},
		{"/dev/full", 1, 7},
		{"/dev/tty", 5, 0},
		{"/dev/zero", 1, 5},
		{"/dev/urandom", 1, 9},
		{"", 136, devices.Wildcard}, // /dev/pts
		{"", 5, 2},                  // /dev/ptmx
		{"", 10, 200},               // /dev/net/tun
	} {
		if d.path == "" || !hasDevice(spec, d.path) {
			rules = append(rules, device(devices.CharDevice, d.major, d.minor, "rwm"))
		}
	}
	return rules
}

func device(kind devices.Type, major, minor int64, access devices.Permissions) *devices.Rule {
	return &devices.Rule{Type: kind, Major: major, Minor: minor, Permissions: access, Allow: true}
}

func hasDevice(spec *specs.Spec, path string) bool {
	return spec.Linux != nil &&
		slices.ContainsFunc(spec.Linux.Devices, func(d specs.LinuxDevice) bool { return d.Path == path })
}
