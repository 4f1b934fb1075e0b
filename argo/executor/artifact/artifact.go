// Package artifact brings artifacts from their stores and puts them there: by S3, by HTTP, or as a text of the template.
// The sources are upstream's workflow/artifacts in 3.6, 3.7 and 4.0.
//
// It opens no path but below a folder that the caller has opened, follows no link out of it, and reads regular files
// only. It keeps no object in memory, and sends credentials to no host but the store's.
package artifact

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
)

// Secrets returns the value of a key of a secret that is mounted in the container.
type Secrets func(name, key string) (string, error)

// Store is the place of one artifact.
type Store interface {
	// Load brings the object, or the folder of objects below the key, to a new name below a folder. The error is
	// fs.ErrNotExist, by errors.Is, if there is neither.
	Load(ctx context.Context, to *os.Root, name string) error
	// Save puts a regular file, or the files of a folder one by one, and returns when the store has them all. Links
	// are skipped, and anything else that is not a file is an error. The name of the open file decides on the
	// object's content type, by its extension. Save does not close it.
	Save(ctx context.Context, from *os.File) error
}

// Open returns the store that a location names. It makes no request.
func Open(ctx context.Context, l executor.Location, secrets Secrets, log *slog.Logger) (Store, error) {
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

// notFound is the error of a store that does not have the object. Its text is the store's.
type notFound struct{ message string }

func (e notFound) Error() string { return e.message }

func (e notFound) Is(target error) bool { return target == fs.ErrNotExist }
