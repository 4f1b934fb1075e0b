package step

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// untar unpacks a compressed tarball to a new name below a folder: if it holds one file or folder, this is what the name
// is given to (upstream's untar and unpack). The caller has made sure that nothing is at the name.
func untar(in io.Reader, root *os.Root, name string) error {
	part := name + ".tmpdir"
	if err := root.Mkdir(part, 0o777); err != nil {
		return err
	}
	into, err := root.OpenRoot(part)
	if err != nil {
		return err
	}
	defer into.Close()
	compressed, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	archive := tar.NewReader(compressed)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := extract(into, header, archive); err != nil {
			return err
		}
	}
	return settle(root, part, name)
}

// extract makes one file, folder or link. Entries of other kinds are left out. A path or the target of a link that leads
// out is refused by its text, and what leads out by several links is refused by os.Root.
func extract(into *os.Root, header *tar.Header, content io.Reader) error {
	// Upstream cleans a path before it puts the folder's in front: an absolute one lies below, too.
	name := strings.TrimLeft(path.Clean(header.Name), "/")
	if !inside(name) {
		return fmt.Errorf("illegal file path: %s", header.Name)
	}
	switch header.Typeflag {
	case tar.TypeSymlink:
		if path.IsAbs(header.Linkname) || !inside(path.Join(path.Dir(name), header.Linkname)) {
			return fmt.Errorf("illegal symlink target: %s -> %s", header.Name, header.Linkname)
		}
		if err := into.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		return into.Symlink(header.Linkname, name)
	case tar.TypeDir:
		return into.MkdirAll(name, 0o755)
	case tar.TypeReg:
		if err := into.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := into.OpenFile(name, os.O_CREATE|os.O_RDWR, os.FileMode(header.Mode).Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		return into.Chtimes(name, header.AccessTime, header.ModTime)
	}
	return nil
}

// inside reports whether a clean relative path lies below the folder in which it begins.
func inside(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.HasPrefix(name, "../") && !path.IsAbs(name)
}

// settle gives a name to the only entry of a folder or, if it has not just one, to the folder.
func settle(root *os.Root, part, name string) error {
	f, err := root.Open(part)
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(2)
	f.Close()
	if err != nil && err != io.EOF {
		return err
	}
	if len(entries) != 1 {
		return root.Rename(part, name)
	}
	if err := root.Rename(part+"/"+entries[0].Name(), name); err != nil {
		return err
	}
	return root.Remove(part)
}
