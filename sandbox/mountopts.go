package sandbox

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions is an OCI mount's option list in the terms of mount_setattr(2)
// and fsconfig(2).
type mountOptions struct {
	bind      bool
	recursive bool // rbind

	set, clear       uint64 // MOUNT_ATTR_* for the mount itself
	setRec, clearRec uint64 // MOUNT_ATTR_* for it and all mounts beneath
	propagation      []propagation
	data             []string // options of the file system itself
}

// propagation is one change of a mount's propagation type.
type propagation struct {
	kind      uint64
	recursive bool
}

// legacy returns the change in the terms of mount(2).
func (p propagation) legacy() uintptr {
	if p.recursive {
		return uintptr(p.kind) | unix.MS_REC
	}
	return uintptr(p.kind)
}

// attribute is the effect of one option on a mount's attributes.
type attribute struct{ set, clear uint64 }

// attributes holds the options of mount(8) that are attributes of a mount.
// Setting an access time mode needs the old one cleared: mount_setattr(2).
var attributes = map[string]attribute{
	"ro":            {set: unix.MOUNT_ATTR_RDONLY},
	"rw":            {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid":        {set: unix.MOUNT_ATTR_NOSUID},
	"suid":          {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev":         {set: unix.MOUNT_ATTR_NODEV},
	"dev":           {clear: unix.MOUNT_ATTR_NODEV},
	"noexec":        {set: unix.MOUNT_ATTR_NOEXEC},
	"exec":          {clear: unix.MOUNT_ATTR_NOEXEC},
	"nosymfollow":   {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"symfollow":     {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"nodiratime":    {set: unix.MOUNT_ATTR_NODIRATIME},
	"diratime":      {clear: unix.MOUNT_ATTR_NODIRATIME},
	"relatime":      {clear: unix.MOUNT_ATTR__ATIME},
	"norelatime":    {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"strictatime":   {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"nostrictatime": {clear: unix.MOUNT_ATTR__ATIME},
	"noatime":       {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	"atime":         {clear: unix.MOUNT_ATTR__ATIME},
}

var propagations = map[string]propagation{
	"private":     {kind: unix.MS_PRIVATE},
	"rprivate":    {kind: unix.MS_PRIVATE, recursive: true},
	"slave":       {kind: unix.MS_SLAVE},
	"rslave":      {kind: unix.MS_SLAVE, recursive: true},
	"shared":      {kind: unix.MS_SHARED},
	"rshared":     {kind: unix.MS_SHARED, recursive: true},
	"unbindable":  {kind: unix.MS_UNBINDABLE},
	"runbindable": {kind: unix.MS_UNBINDABLE, recursive: true},
}

// ignoredOptions are defaults anyway, or matter only to mount(8).
var ignoredOptions = map[string]bool{
	"defaults": true, "async": true, "remount": true, "loud": true, "auto": true, "noauto": true, "nofail": true,
}

// refusedOptions are extensions of the OCI specification that this launch does
// not implement.
var refusedOptions = map[string]bool{
	"idmap": true, "ridmap": true, "tmpcopyup": true,
}

// parseMountOptions sorts the options of an OCI mount
// (https://github.com/opencontainers/runtime-spec/blob/main/config.md#linux-mount-options).
func parseMountOptions(options []string) (mountOptions, error) {
	var m mountOptions
	for _, option := range options {
		if err := m.add(option); err != nil {
			return m, err
		}
	}
	return m, nil
}

func (m *mountOptions) add(option string) error {
	if a, ok := attributes[option]; ok {
		m.set, m.clear = m.set&^a.clear|a.set, m.clear&^a.set|a.clear
		return nil
	}
	if a, ok := attributes[strings.TrimPrefix(option, "r")]; ok && strings.HasPrefix(option, "r") {
		m.setRec, m.clearRec = m.setRec&^a.clear|a.set, m.clearRec&^a.set|a.clear
		return nil
	}
	if p, ok := propagations[option]; ok {
		m.propagation = append(m.propagation, p)
		return nil
	}
	switch {
	case option == "bind":
		m.bind = true
	case option == "rbind":
		m.bind, m.recursive = true, true
	case refusedOptions[option] || strings.HasPrefix(option, "idmap=") || strings.HasPrefix(option, "ridmap="):
		return fmt.Errorf("mount option %q is not supported in Wasm containers", option)
	case ignoredOptions[option]:
	default:
		m.data = append(m.data, option)
	}
	return nil
}
