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

// Limits of the files of one image.
const (
	maxFiles = 1_000_000
	maxNames = 64 << 20 // bytes of all names
	maxPath  = 4096     // bytes of a name: longer ones cannot be unpacked (PATH_MAX)
	maxLinks = 40       // the kernel's limit (path_resolution(7))
)

// files is the part of a root file system that is needed to find an entry point in it.
type files struct {
	tree
	made  int // entries made by its layers
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

// layer is the changes of a layer. Its removals apply to the layers below, wherever they are in the layer
// (https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts).
type layer struct {
	number  int
	gone    []string // paths
	emptied []string // folders
	entries []entry
}

// entry is a file of a layer or, if both file and link are unset, a folder.
type entry struct {
	at   string
	file *file
	link string // the path that it is a hard link to
	none bool   // cannot be an entry point, such as a device
}

// add puts a layer of files on top of those before it, and returns how many entries the layer has.
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

// count enforces the limits on the names of an image.
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

// read records an entry of the archive.
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

// lay applies the changes of a layer.
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

// clean returns a path of an archive as an absolute path.
func clean(name string) string { return path.Clean("/" + name) }

// find returns the file that a path leads to. It also follows links among the parent folders.
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
