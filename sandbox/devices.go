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
// /dev/ptmx comes with the devpts mount.
var defaultDevices = []specs.LinuxDevice{
	charDevice("/dev/null", 1, 3),
	charDevice("/dev/zero", 1, 5),
	charDevice("/dev/full", 1, 7),
	charDevice("/dev/random", 1, 8),
	charDevice("/dev/urandom", 1, 9),
	charDevice("/dev/tty", 5, 0),
}

// streamLinks are the links that every container has. Their targets are not there in a Wasm container, because
// /proc is empty: a module's own streams are opened instead, and anything else fails. So no guest creates a file
// in their place and fills it with output that is never read.
// See RATIONALE.md, "How does a guest open /dev/stdout?"
var streamLinks = map[string]string{
	"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
}

func charDevice(path string, major, minor int64) specs.LinuxDevice {
	return specs.LinuxDevice{Path: path, Type: "c", Major: major, Minor: minor}
}

// makeDevices makes the default devices and links and those of the specification, but none in a /dev that
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
	for path, target := range streamLinks {
		link := func(dir int, name string) error {
			err := unix.Symlinkat(target, dir, name)
			if errors.Is(err, unix.EEXIST) {
				return nil // from the image, or an earlier start on this root file system
			}
			return err
		}
		if err := makeIn(root, path, link); err != nil {
			return fmt.Errorf("create link %s: %w", path, err)
		}
	}
	return nil
}

func isBoundDev(m specs.Mount) bool { return isBind(m) && clean(m.Destination) == "/dev" }

func makeDevice(root int, device specs.LinuxDevice) error {
	mode, err := deviceMode(device)
	if err != nil {
		return err
	}
	return makeIn(root, device.Path, func(dir int, name string) error {
		// A file of the image or of a volume stays.
		if err := unix.Mknodat(dir, name, mode, int(unix.Mkdev(uint32(device.Major), uint32(device.Minor)))); err != nil {
			return err
		}
		if device.UID == nil && device.GID == nil {
			return nil
		}
		return unix.Fchownat(dir, name, owner(device.UID), owner(device.GID), unix.AT_SYMLINK_NOFOLLOW)
	})
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
