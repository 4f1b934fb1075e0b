package output

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/artifact/mount"
)

// maxFiles bounds the objects that a folder becomes.
const maxFiles = 100_000

// maxKey is the longest key of S3, in bytes.
const maxKey = 1024

// files returns the files of an output that is no archive, by key.
func (o *Outputs) files(w *Output) (map[string]mount.Content, error) {
	if !w.isFolder() {
		c, err := o.server.Lookup(w.Path)
		if err != nil {
			return nil, err
		}
		return map[string]mount.Content{w.Key: c}, nil
	}
	entries, err := o.server.Entries()
	if err != nil {
		return nil, err
	}
	found := map[string]mount.Content{}
	for _, e := range entries {
		if e.Mode&unix.S_IFMT != unix.S_IFREG {
			continue // as with Argo, links are not followed; folders have no objects
		}
		key := w.Key + e.Path
		if err := checkKey(key); err != nil {
			return nil, err
		}
		if found[key] = e.Content; len(found) > maxFiles {
			return nil, fmt.Errorf("the folder has more than %d files", maxFiles)
		}
	}
	return found, nil
}

// checkKey returns an error for a key that not every store takes: the task has made it.
func checkKey(key string) error {
	switch {
	case !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl):
		return fmt.Errorf("the name %q cannot be a key: it has control characters, or is not UTF-8", key)
	case len(key) > maxKey:
		return fmt.Errorf("the name %.100q… cannot be a key: it has %d bytes, and S3 allows %d", key, len(key), maxKey)
	}
	return nil
}

// gather returns the objects that an output becomes.
func (o *Outputs) gather(ctx context.Context, w *Output) ([]*pending, error) {
	if w.Archive {
		p, err := o.archive(ctx, w)
		if err != nil {
			return nil, err
		}
		return []*pending{p}, nil
	}
	files, err := o.files(w)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("the task has not written it")
	}
	if err != nil {
		return nil, err
	}
	var all []*pending
	for key, c := range files {
		p := &pending{output: w, key: key, from: c, done: func() {}}
		o.mu.Lock()
		begun := o.uploads[target{w, key}] != nil
		o.mu.Unlock()
		if begun && c.Size() > 0 || c.Size() > mount.PartSize {
			p.upload = o.upload(target{w, key}, c)
		}
		all = append(all, p)
	}
	return all, nil
}

// packed is a file with an archive.
type packed struct {
	*os.File
	size int64
}

func (p packed) Size() int64 { return p.size }

// Changes returns always the same.
func (packed) Changes(int64) [2]int64 { return [2]int64{} }

// archive packs all that the mount has into a file without a name, in the room of what is written.
func (o *Outputs) archive(ctx context.Context, w *Output) (*pending, error) {
	f, err := o.Room.Unnamed(o.Spool)
	if err != nil {
		return nil, err
	}
	out := &spooled{ctx: ctx, to: f, room: o.Room}
	done := func() {
		o.Room.Drop(f)
		o.Room.Release(out.n)
	}
	if err := o.pack(out, path.Base(strings.TrimSuffix(w.Key, path.Ext(w.Key)))); err != nil {
		done()
		return nil, err
	}
	p := &pending{output: w, key: w.Key, from: packed{f, out.n}, done: done}
	if out.n > mount.PartSize {
		p.upload = o.upload(target{w, w.Key}, p.from)
	}
	return p, nil
}

// spooled takes what is written from the room, and ends it with the context or when that is used up.
type spooled struct {
	ctx  context.Context
	to   io.Writer
	room *mount.Room
	n    int64 // bytes that are taken
}

func (s *spooled) Write(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if !s.room.Reserve(int64(len(p))) {
		return 0, fmt.Errorf("the archive and the files in it have more than the %d bytes that a container may have before they are stored", s.room.Limit())
	}
	s.n += int64(len(p))
	return s.to.Write(p)
}

// pack writes a tarball with gzip. Its paths begin with a folder of that name, as in Argo's.
func (o *Outputs) pack(out io.Writer, folder string) error {
	zipped := gzip.NewWriter(out)
	all := tar.NewWriter(zipped)
	entries, err := o.server.Entries()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := writeEntry(all, e, folder); err != nil {
			return fmt.Errorf("pack %q: %w", e.Path, err)
		}
	}
	if err := errors.Join(all.Close(), zipped.Close()); err != nil {
		return fmt.Errorf("pack the folder: %w", err)
	}
	return nil
}

func writeEntry(all *tar.Writer, e mount.Entry, folder string) error {
	h := &tar.Header{Name: path.Join(folder, e.Path), Mode: int64(e.Mode & 0o777), ModTime: e.Modified}
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case unix.S_IFLNK:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, e.Content.Size()
	default:
		return nil // a FIFO or a socket
	}
	if err := all.WriteHeader(h); err != nil || h.Size == 0 {
		return err
	}
	_, err := io.Copy(all, io.NewSectionReader(e.Content, 0, h.Size))
	return err
}
