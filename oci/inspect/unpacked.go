package inspect

import (
	"archive/tar"
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/wasmshim/containerd-shim-wasm/oci/blob"
)

// Unpacked is a blob.Source that may still have an image's files when it no longer has the image's layers:
// containerd can be configured to discard layers after unpacking (discard_unpacked_layers).
type Unpacked interface {
	blob.Source
	// Files returns the files of all layers with a chain id; done releases them.
	Files(ctx context.Context, chain digest.Digest) (files *os.Root, done func() error, err error)
}

// unpackedLayer is the number of the layer that represents all unpacked layers.
const unpackedLayer = -1

// lookUnpacked reads an image's files from where they are unpacked.
func (l *look) lookUnpacked(ctx context.Context) (done func() error, err error) {
	source, ok := l.source.(Unpacked)
	if !ok {
		return nil, blob.ErrMissing
	}
	l.unpacked, done, err = source.Files(ctx, identity.ChainID(l.config.RootFS.DiffIDs))
	if err != nil {
		return nil, err
	}
	l.files = files{}
	if err := l.files.addFolder(l.unpacked); err != nil {
		return nil, errors.Join(err, done())
	}
	return done, nil
}

// addFolder adds the content of a folder.
func (f *files) addFolder(root *os.Root) error {
	l := layer{number: unpackedLayer}
	err := fs.WalkDir(root.FS(), ".", func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		header := &tar.Header{Name: at, Typeflag: tar.TypeChar} // any other kind, which is ignored
		switch d.Type() {
		case fs.ModeDir:
			header.Typeflag = tar.TypeDir
		case fs.ModeSymlink:
			header.Typeflag = tar.TypeSymlink
			header.Linkname, err = root.Readlink(at)
		case 0:
			header.Typeflag = tar.TypeReg
		}
		if err == nil {
			err = f.count(header)
		}
		if err == nil {
			err = l.readFile(root, header)
		}
		if len(l.entries) > maxFiles {
			return errTooMany
		}
		return err
	})
	if err != nil {
		return err
	}
	return f.lay(l)
}

// readFile records a file of a folder.
func (l *layer) readFile(root *os.Root, header *tar.Header) error {
	if header.Typeflag != tar.TypeReg {
		return l.read(nil, header)
	}
	file, err := root.Open(header.Name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header.Size = info.Size()
	return l.read(file, header)
}
