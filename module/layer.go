package module

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/wasm"
)

// openLayer opens a Wasm layer's file in containerd's content store. Its path consists of containerd's folder
// and a digest, so no name that an image chose is opened.
func openLayer(image oci.Found, layer oci.Module) (Source, error) {
	fd, err := unix.Open(layer.Path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Source{}, fmt.Errorf("open layer %s of image %s: %w", layer, image.Image, err)
	}
	from := Source{
		file:   os.NewFile(uintptr(fd), fmt.Sprintf("%s of image %s", layer, image.Image)),
		stored: true, sha256: layer.Digest.Encoded(), compression: layer.Compression, image: image,
	}
	if err := checkLayer(from, layer); err != nil {
		from.Close()
		return Source{}, err
	}
	return from, nil
}

// checkLayer refuses a layer that does not match its media type or cannot be run. Only the preparer sees the
// contents of a compressed layer.
func checkLayer(from Source, layer oci.Module) error {
	head := make([]byte, oci.HeadSize)
	n, err := from.file.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read layer %s: %w", from.file.Name(), err)
	}
	if _, err := layer.CheckHead(head[:n]); err != nil || layer.Compression != "" {
		return err
	}
	return checkHead(head[:min(n, wasm.HeadSize)], "layer "+from.file.Name())
}
