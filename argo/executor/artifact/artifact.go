// Package artifact brings artifacts from their stores and puts them there: by S3, by HTTP, or as a text of the template.
// The sources are upstream's workflow/artifacts in 3.6, 3.7 and 4.0.
//
// It opens nothing but files below a folder that the caller has opened, never follows a link out of that folder, and
// reads regular files only. It never has a whole object in memory. It sends credentials to no host but the store's.
package artifact

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
)

// Secrets returns the value of a key of a secret that is mounted in the container.
type Secrets func(name, key string) (string, error)

// Store is the place of one artifact.
type Store interface {
	// Load brings the object, or the folder of objects below the key, to a new name below a folder. After an error, a
	// part of it may be there. The error is ErrNotFound, by errors.Is, if the store has neither.
	Load(ctx context.Context, to *os.Root, name string) error
	// Save puts a regular file, or the files of a folder one by one, and returns when the store has them all. Links
	// are skipped, and anything else that is not a file is an error. The name of the open file decides on the
	// object's content type, by its extension. Save does not close it.
	Save(ctx context.Context, from *os.File) error
}

// ErrNotFound is the error of a store that does not have the object.
var ErrNotFound = errors.New("the store does not have the object")

// notFound is an ErrNotFound with a text of the store.
type notFound struct{ message string }

func (e notFound) Error() string { return e.message }

func (e notFound) Is(target error) bool { return target == ErrNotFound }

// Open returns the store that a location names. It makes no request.
func Open(l executor.Location, secrets Secrets, log *slog.Logger) (Store, error) {
	switch {
	case l.S3 != nil:
		return openS3(*l.S3, secrets, log)
	case l.HTTP != nil:
		return openHTTP(*l.HTTP, secrets)
	case l.Raw != nil:
		return raw{l.Raw.Data}, nil
	}
	return nil, errors.New("the artifact's store is not known")
}

// Whole returns an error of a method of a folder with whole paths, as functions of package os have them.
func Whole(folder *os.Root, err error) error {
	switch e := err.(type) {
	case *os.PathError:
		if filepath.IsAbs(e.Path) {
			return err // of an open file
		}
		return &os.PathError{Op: strings.TrimSuffix(e.Op, "at"), Path: filepath.Join(folder.Name(), e.Path), Err: e.Err}
	case *os.LinkError:
		if filepath.IsAbs(e.New) {
			return err
		}
		whole := &os.LinkError{Op: strings.TrimSuffix(e.Op, "at"), Old: e.Old, New: filepath.Join(folder.Name(), e.New), Err: e.Err}
		if whole.Op != "symlink" { // of which it is a text
			whole.Old = filepath.Join(folder.Name(), e.Old)
		}
		return whole
	}
	return err
}

// create writes a new file.
func create(to *os.Root, name string, mode os.FileMode, write func(io.Writer) error) error {
	f, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return Whole(to, err)
	}
	err = write(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Size returns the size of a regular file, and an error for anything else.
func Size(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.IsDir() {
		return 0, &os.PathError{Op: "read", Path: f.Name(), Err: unix.EISDIR}
	}
	if !info.Mode().IsRegular() {
		return 0, &os.PathError{Op: "read", Path: f.Name(), Err: errors.New("it is not a regular file")}
	}
	return info.Size(), nil
}
