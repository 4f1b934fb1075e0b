package pack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/wasmshim/containerd-shim-wasm/oci"
)

// File is a file on this machine and its path in the root file system of the image.
type File struct{ Host, Guest string }

// ParseFile reads HOST:GUEST. GUEST is an absolute path.
func ParseFile(text string) (File, error) {
	host, guest, ok := strings.Cut(text, ":")
	if !ok || host == "" || !path.IsAbs(guest) || path.Clean(guest) == "/" {
		return File{}, fmt.Errorf("%q is not of the form host:guest with an absolute path in the guest, as in ./config.json:/etc/config.json", text)
	}
	return File{host, guest}, nil
}

// module is a file to be packed, and the kind of its content.
type module struct {
	path, name string
	content    oci.Content
}

// openModule makes sure that a file is Wasm.
func openModule(file, name string) (module, error) {
	f, err := os.Open(file)
	if err != nil {
		return module{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return module{}, err
	}
	if !info.Mode().IsRegular() {
		return module{}, fmt.Errorf("%s is not a regular file", file)
	}
	head := make([]byte, oci.HeadSize)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return module{}, fmt.Errorf("read %s: %w", file, err)
	}
	content := oci.ContentOf(head[:n])
	if content != oci.WasmModule && content != oci.WasmComponent {
		return module{}, fmt.Errorf("%s holds %s: only binary WebAssembly can be packed (a compiler's .wasm file; wat2wasm makes one of text)", file, content)
	}
	if name == "" {
		name = path.Base(file)
	}
	return module{file, name, content}, nil
}

// entry is one file of a tar layer.
type entry struct {
	host string
	mode int64
}

// filesLayer packs files into a layer. The layer depends only on their content and their paths, and on
// whether they are executable: it has no times, and root owns everything.
func filesLayer(mediaType, compression string, files map[string]entry) (Blob, digest.Digest, error) {
	archive, err := archiveOf(files)
	if err != nil {
		return Blob{}, "", err
	}
	content, err := compress(compression, "", archive)
	if err != nil {
		return Blob{}, "", err
	}
	if compression != "" {
		separator := "+"
		if mediaType == dockerFiles {
			separator = "." // Docker's spelling
		}
		mediaType += separator + compression
	}
	return bytesBlob(mediaType, content), digest.FromBytes(archive), nil
}

func archiveOf(files map[string]entry) ([]byte, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	made := map[string]bool{".": true}
	for _, at := range slices.Sorted(maps.Keys(files)) {
		for _, dir := range parents(at) {
			if _, isFile := files[dir]; isFile {
				return nil, fmt.Errorf("/%s is to be a file and, for /%s, a folder", dir, at)
			}
			if made[dir] {
				continue
			}
			made[dir] = true
			if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}); err != nil {
				return nil, err
			}
		}
		if err := archiveFile(archive, at, files[at]); err != nil {
			return nil, fmt.Errorf("pack %s as /%s: %w", files[at].host, at, err)
		}
	}
	err := archive.Close()
	return buffer.Bytes(), err
}

func archiveFile(archive *tar.Writer, at string, e entry) error {
	content, err := os.ReadFile(e.host)
	if err != nil {
		return err
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: at, Mode: e.mode, Size: int64(len(content))}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = archive.Write(content)
	return err
}

// parents returns the folders above a path, the outermost first.
func parents(at string) []string {
	var dirs []string
	for dir := path.Dir(at); dir != "."; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}

// compress returns content compressed; name is the file's name in a zip archive.
func compress(how, name string, content []byte) ([]byte, error) {
	var buffer bytes.Buffer
	switch how {
	case "":
		return content, nil
	case "gzip":
		return finish(&buffer, gzip.NewWriter(&buffer), content)
	case "zstd":
		writer, err := zstd.NewWriter(&buffer, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return finish(&buffer, writer, content)
	case "zip":
		archive := zip.NewWriter(&buffer)
		file, err := archive.Create(name)
		if err != nil {
			return nil, err
		}
		if _, err := file.Write(content); err != nil {
			return nil, err
		}
		err = archive.Close()
		return buffer.Bytes(), err
	}
	return nil, fmt.Errorf("unknown compression %q: give gzip, zstd, zip or none", how)
}

func finish(buffer *bytes.Buffer, writer io.WriteCloser, content []byte) ([]byte, error) {
	if _, err := writer.Write(content); err != nil {
		return nil, err
	}
	err := writer.Close()
	return buffer.Bytes(), err
}
