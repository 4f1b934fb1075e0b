package worker

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// unpack reads and decompresses the preparer's module or machine code.
func unpack(order control.Compile, in *os.File) ([]byte, error) {
	switch order.Compression {
	case "":
		return readAll(order, in, fileSize(in))
	case "gzip":
		return unpackGzip(order, in)
	case "zstd":
		return unpackZstd(order, in)
	case "zip":
		return unpackZip(order, in)
	}
	return nil, fmt.Errorf("%s is compressed by %q, which is unknown", order.Name, order.Compression)
}

// fileSize returns the size of a file, 0 if unknown.
func fileSize(in *os.File) int64 {
	info, err := in.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// readAll reads at most one byte more than a module may have, even if a few bytes unpack to more.
func readAll(order control.Compile, r io.Reader, size int64) ([]byte, error) {
	var content bytes.Buffer
	content.Grow(int(min(size, order.MaxSize)) + bytes.MinRead)
	n, err := content.ReadFrom(io.LimitReader(r, order.MaxSize+1))
	switch {
	case err != nil && order.Compression != "":
		return nil, fmt.Errorf("unpack %s: its %s data is damaged: %w", order.Name, order.Compression, err)
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", order.Name, err)
	case n > order.MaxSize && order.Compression != "":
		return nil, fmt.Errorf("%s unpacks to more than %d bytes, the limit: raise max_module_size in %s", order.Name, order.MaxSize, order.Config)
	case n > order.MaxSize:
		return nil, fmt.Errorf("%s has more than %d bytes, the limit: raise max_module_size in %s", order.Name, order.MaxSize, order.Config)
	}
	return content.Bytes(), nil
}

func notAs(order control.Compile, err error) error {
	return fmt.Errorf("%s is not %s, as its media type says: %w", order.Name, order.Compression, err)
}

func unpackGzip(order control.Compile, in io.Reader) ([]byte, error) {
	r, err := gzip.NewReader(in)
	if err != nil {
		return nil, notAs(order, err)
	}
	return readAll(order, r, 0)
}

func unpackZstd(order control.Compile, in io.Reader) ([]byte, error) {
	r, err := newZstdReader(in)
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", order.Name, err)
	}
	defer r.Close()
	return readAll(order, r, 0)
}

func unpackZip(order control.Compile, in *os.File) ([]byte, error) {
	archive, err := zip.NewReader(in, fileSize(in))
	if err != nil {
		return nil, notAs(order, err)
	}
	var modules []*zip.File
	var names []string
	for _, f := range archive.File {
		if f.FileInfo().IsDir() {
			continue
		}
		names = append(names, fmt.Sprintf("%q", f.Name))
		if strings.HasSuffix(f.Name, entrypoint.Suffix) {
			modules = append(modules, f)
		}
	}
	if len(modules) != 1 {
		return nil, fmt.Errorf("%s must hold one .wasm file and has %d; it holds: %s", order.Name, len(modules), strings.Join(shorten(names, 20), ", "))
	}
	r, err := modules[0].Open()
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", order.Name, err)
	}
	defer r.Close()
	return readAll(order, r, 0)
}
