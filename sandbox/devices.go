package sandbox

import (
	"errors"
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultDevices are the devices every container gets:
// https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices.
// /dev/ptmx comes with the devpts mount; /dev/fd and the links to it would lead
// into /proc, which a guest does not have.
var defaultDevices = []specs.LinuxDevice{
	charDevice("/dev/null", 1, 3),
	charDevice("/dev/zero", 1, 5),
	charDevice("/dev/full", 1, 7),
	charDevice("/dev/random", 1, 8),
	charDevice("/dev/urandom", 1, 9),
	charDevice("/dev/tty", 5, 0),
}

func charDevice(path string, major, minor int64) specs.LinuxDevice {
	return specs.LinuxDevice{Path: path, Type: "c", Major: major, Minor: minor}
}

// makeDevices makes the default devices and those of the specification, but none in a /dev that
// is a volume.
func makeDevices(root int, spec *specs.Spec) error {
	if slices.ContainsFunc(spec.Mounts, isBoundDev) {
		return nil
	}
	for _, device := range slices.Concat(defaultDevices, spec.Linux.Devices) {
		if err := makeDevice(root, device); err != nil {
			return fmt.Errorf("create device %s: %w", device.Path, err)
		}
	}
	return nil
}

func isBoundDev(m specs.Mount) bool {
	isBind := slices.ContainsFunc(m.Options, func(option string) bool { return option == "bind" || option == "rbind" })
	return (isBind || m.Type == "bind") && clean(m.Destination) == "/dev"
}

func makeDevice(root int, device specs.LinuxDevice) error {
	mode, err := deviceMode(device)
	if err != nil {
		return err
	}
	dir, name, err := mkdirParent(root, device.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	err = unix.Mknodat(dir, name, mode, int(unix.Mkdev(uint32(device.Major), uint32(device.Minor))))
	if errors.Is(err, unix.EEXIST) {
		// The image or a volume brings its own.
		return nil
	}
	if err != nil {
		return err
	}
	if device.UID == nil && device.GID == nil {
		return nil
	}
	return unix.Fchownat(dir, name, owner(device.UID), owner(device.GID), unix.AT_SYMLINK_NOFOLLOW)
}

func deviceMode(device specs.LinuxDevice) (uint32, error) {
	mode := uint32(0o666)
	if device.FileMode != nil {
		mode = uint32(device.FileMode.Perm())
	}
	switch device.Type {
	case "c", "u":
		return mode | unix.S_IFCHR, nil
	case "b":
		return mode | unix.S_IFBLK, nil
	case "p":
		return mode | unix.S_IFIFO, nil
	}
	return 0, fmt.Errorf("device type %q is unknown", device.Type)
}

func owner(id *uint32) int {
	if id == nil {
		return 0
	}
	return int(*id)
}
