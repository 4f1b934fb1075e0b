package sandbox

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Stored returns the file of an image's layer behind a container's open file, open for
// reading and under the same name, and reports whether there is one. rootfs are
// the mounts of the container's root file system. The caller closes both.
//
// Overlay's own file does not identify its content: it keeps the layer's inode number
// after a container has written to it and so has a copy
// (https://docs.kernel.org/filesystems/overlayfs.html#inode-properties), and its
// device number goes to another mount later. There is no such file in a layer if the container
// has written the file, if it lies on a volume, if it is put together from several layers
// (metacopy), or if the layers are on several file systems.
func (s *Sandbox) Stored(file *os.File, rootfs []Mount) (*os.File, bool) {
	image, ok := overlayStack(rootfs)
	if !ok {
		return nil, false
	}
	var shown, root unix.Stat_t
	if unix.Fstat(int(file.Fd()), &shown) != nil || unix.Fstat(s.root, &root) != nil || shown.Dev != root.Dev {
		return nil, false
	}
	path, ok := pathBelow(s.root, int(file.Fd()))
	if !ok {
		return nil, false
	}
	for i, layer := range image.folders {
		found, st, err := openInLayer(layer, path)
		if err != nil {
			continue // the file is in a lower layer
		}
		defer unix.Close(found)
		if i == 0 && image.writable || !sameContent(shown, st) || isMetacopy(found) {
			return nil, false
		}
		fd, err := unix.Open(descriptorPath(found), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, false
		}
		return os.NewFile(uintptr(fd), file.Name()), true
	}
	return nil, false
}

// stack holds the folders of an overlay.
type stack struct {
	folders  []string // the uppermost first
	writable bool     // the first one belongs to the container
}

// overlayStack reads the options of a root file system that is one overlay, in the
// form that containerd's snapshotter writes.
func overlayStack(rootfs []Mount) (stack, bool) {
	if len(rootfs) != 1 || rootfs[0].Type != "overlay" || rootfs[0].Target != "" {
		return stack{}, false
	}
	var upper, lower []string
	for _, option := range rootfs[0].Options {
		if path, ok := strings.CutPrefix(option, "upperdir="); ok {
			upper = []string{path}
		}
		if list, ok := strings.CutPrefix(option, "lowerdir="); ok {
			lower = strings.Split(list, ":")
		}
	}
	all := stack{folders: append(upper, lower...), writable: upper != nil}
	for _, folder := range all.folders {
		if isOddPath(folder) {
			return stack{}, false
		}
	}
	return all, len(lower) > 0
}

// openInLayer returns an O_PATH descriptor of a layer's file at path; links are not
// followed.
func openInLayer(layer, path string) (int, unix.Stat_t, error) {
	var st unix.Stat_t
	folder, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, err
	}
	defer unix.Close(folder)
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd, err := unix.Openat2(folder, filepath.Clean(path), &how)
	if err != nil {
		return -1, st, err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// sameContent reports whether an overlay's file is a layer's, and the container has not
// written to it: a write would have set the time of the last change.
func sameContent(shown, layer unix.Stat_t) bool {
	return layer.Mode&unix.S_IFMT == unix.S_IFREG && shown.Mode == layer.Mode && shown.Ino == layer.Ino &&
		shown.Size == layer.Size && shown.Mtim == layer.Mtim && shown.Ctim == layer.Ctim
}

// isMetacopy reports whether a layer's file, opened with O_PATH, has its data in another one
// (https://docs.kernel.org/filesystems/overlayfs.html#metadata-only-copy-up).
func isMetacopy(fd int) bool {
	_, err := unix.Getxattr(descriptorPath(fd), "trusted.overlay.metacopy", nil)
	return err != unix.ENODATA && err != unix.EOPNOTSUPP
}
