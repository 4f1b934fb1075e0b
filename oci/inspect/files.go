package inspect

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// Bounds of the files of one image.
const (
	maxFiles = 1_000_000
	maxNames = 64 << 20 // bytes of all names
	maxPath  = 4096     // bytes of a name: longer ones cannot be unpacked (PATH_MAX)
	maxLinks = 40       // as the kernel follows (path_resolution(7))
)

// files is a root file system as far as finding an entry point in it goes.
type files struct {
	tree
	made  int // entries that its layers made
	names int // bytes of their names
}

type file struct {
	layer   int    // its number, from 0
	name    string // in that layer, as an absolute path
	size    int64
	content oci.Content
	target  string // of a symbolic link
}

func (f *file) isWasm() bool { return f.content == oci.WasmModule || f.content == oci.WasmComponent }

// layer is what a layer changes. What it takes away is of the layers before, wherever in the layer
// that stands (https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts).
type layer struct {
	number  int
	gone    []string // paths
	emptied []string // folders
	entries []entry
}

// entry is a file of a layer or, with neither file nor link, a folder.
type entry struct {
	at   string
	file *file
	link string // the path of what it is another name of
	none bool   // nothing that could be looked up: a device
}

// add lays a layer of files over those before, and returns how many entries it has.
func (f *files) add(archive *tar.Reader, number int) (int, error) {
	l := layer{number: number}
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return len(l.entries), f.lay(l)
		}
		if err != nil {
			return 0, err
		}
		if err := f.count(header); err != nil {
			return 0, err
		}
		if err := l.read(archive, header); err != nil {
			return 0, err
		}
		if len(l.entries)+len(l.gone)+len(l.emptied) > maxFiles {
			return 0, errTooMany
		}
	}
}

var errTooMany = fmt.Errorf("it holds more than %d files", maxFiles)

// count holds the names of an image to their limits.
func (f *files) count(header *tar.Header) error {
	longest := max(len(header.Name), len(header.Linkname))
	if longest > maxPath {
		return fmt.Errorf("it holds a file with a name of %d bytes, the limit is %d", longest, maxPath)
	}
	f.names += len(header.Name) + len(header.Linkname)
	if f.names > maxNames {
		return fmt.Errorf("the names of its files have more than %d bytes in all", maxNames)
	}
	return nil
}

// read takes note of an entry of the archive.
func (l *layer) read(archive io.Reader, header *tar.Header) error {
	at := clean(header.Name)
	if gone, ok := strings.CutPrefix(path.Base(at), ".wh."); ok {
		if gone == ".wh..opq" {
			l.emptied = append(l.emptied, path.Dir(at))
		} else {
			l.gone = append(l.gone, path.Join(path.Dir(at), gone))
		}
		return nil
	}
	e := entry{at: at}
	switch header.Typeflag {
	case tar.TypeReg:
		head := make([]byte, oci.HeadSize)
		n, err := io.ReadFull(archive, head)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		e.file = &file{layer: l.number, name: at, size: header.Size, content: oci.ContentOf(head[:n])}
	case tar.TypeLink:
		e.link = clean(header.Linkname)
	case tar.TypeSymlink:
		e.file = &file{layer: l.number, target: header.Linkname}
	case tar.TypeDir:
	default:
		e.none = true
	}
	l.entries = append(l.entries, e)
	return nil
}

// lay applies what a layer changes.
func (f *files) lay(l layer) error {
	for _, at := range l.gone {
		f.remove(at)
	}
	for _, at := range l.emptied {
		f.at(at).empty()
	}
	for _, e := range l.entries {
		if e.link != "" {
			if linked := f.at(e.link); linked != nil {
				e.file = linked.file
			}
			e.none = e.file == nil
		}
		if e.none {
			f.remove(e.at)
			continue
		}
		if f.made += f.put(e.at, e.file); f.made > maxFiles {
			return errTooMany
		}
	}
	return nil
}

// clean returns a path of an archive as an absolute one.
func clean(name string) string { return path.Clean("/" + name) }

// find returns the file that a path leads to. Links among the folders above it are followed too.
func (f *files) find(at string) (string, file, bool) {
	at = clean(at)
	for range maxLinks {
		if len(at) > maxPath {
			break
		}
		next, isLink := f.follow(at)
		if !isLink {
			if found := f.at(at); found != nil && found.file != nil {
				return at, *found.file, true
			}
			break
		}
		at = next
	}
	return at, file{}, false
}

// look returns the first file that one of the paths leads to.
func (f *files) look(paths []string) (string, file, bool) {
	for _, p := range paths {
		if at, found, ok := f.find(p); ok {
			return at, found, true
		}
	}
	return "", file{}, false
}
