// Package digests returns the sha256 of modules, and remembers it by the identity of the file, so that
// starting a container again does not read its module.
//
// A remembered digest is trusted like a fresh one, and a trusted file is executed. So a digest is remembered
// only if the kernel guarantees that a file of the same identity has the same content (see identify), and
// only root can write to the folder of the memory. Every other file is hashed each time. The package never
// trusts a name or a path.
package digests

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// settled is how long a file must have been unchanged before it is hashed for its digest to be remembered. It
// is more than the coarsest time stamp that counts (a second, on ext4 with small inodes), so a write after
// the hash cannot leave the remembered time in place.
const settled = 3 * time.Second

// Memory holds the digests of one boot of the node.
type Memory struct {
	dir    string // of this boot's records; empty remembers nothing
	device uint64 // of the file system that holds dir
	hash   func(io.Reader) (string, error)
	now    func() time.Time

	// Turn, if set, is called before a large file is hashed, and done after it.
	Turn func(ctx context.Context) (done func(), err error)
}

// large is the size in bytes from which a hash takes longer than waiting for a turn costs.
const large = 1 << 20

// Open returns the memory in dir, a folder that it creates for its owner's use alone, in a folder that only
// the owner can write. If the folder cannot be written or others can write it, Open returns an error and a
// Memory that remembers nothing.
func Open(dir string) (*Memory, error) {
	m := &Memory{hash: sum, now: time.Now}
	boot, err := bootFolder(dir)
	if err != nil {
		return m, fmt.Errorf("remember digests: %w", err)
	}
	for _, folder := range []string{filepath.Dir(dir), dir, boot} {
		if m.device, err = ownFolder(folder); err != nil {
			return m, fmt.Errorf("remember digests: %w", err)
		}
	}
	m.dir = boot
	return m, nil
}

// Digest returns the sha256 of a regular file, in hex. stored reports whether only the node's own programs, such
// as containerd, put files where it is. Any other file is remembered only if it is on the memory's own file
// system: a separate volume may be a disk that was written elsewhere, including its times.
func (m *Memory) Digest(ctx context.Context, file *os.File, stored bool) (string, error) {
	id, err := identify(file)
	certain := err == nil && m.dir != "" && (stored || id.Device == m.device)
	if !certain {
		return m.read(ctx, file)
	}
	if digest, ok := m.recall(id); ok {
		return digest, nil
	}
	return m.learn(ctx, file)
}

// learn hashes a file and remembers the digest if the file cannot have changed since before.
func (m *Memory) learn(ctx context.Context, file *os.File) (string, error) {
	// A process that has the file mapped writes to it without a new time until the page has been written
	// back.
	flushed := file.Sync() == nil
	before, err := identify(file)
	quiet := flushed && err == nil && m.now().Sub(time.Unix(0, before.Changed)) > settled
	digest, err := m.read(ctx, file)
	if err != nil || !quiet {
		return digest, err
	}
	if after, err := identify(file); err == nil && after == before {
		// A digest that is not remembered is hashed again.
		_ = m.remember(before, digest)
	}
	return digest, nil
}

func (m *Memory) read(ctx context.Context, file *os.File) (string, error) {
	info, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("stat module: %w", err)
	}
	if m.Turn != nil && info.Size() > large {
		done, err := m.Turn(ctx)
		if err != nil {
			return "", fmt.Errorf("hash module %s: %w", file.Name(), err)
		}
		defer done()
	}
	digest, err := m.hash(Reader(ctx, io.NewSectionReader(file, 0, info.Size())))
	if err != nil {
		return "", fmt.Errorf("hash module %s: %w", file.Name(), err)
	}
	return digest, nil
}

// Reader returns a reader of r that fails when ctx has ended.
func Reader(ctx context.Context, r io.Reader) io.Reader { return reader{ctx, r} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func sum(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// errDamaged is the error of Verify for a blob whose content does not match its name.
var errDamaged = errors.New("blob is damaged")

// Verify fails unless the sha256 of a blob in containerd's content store is want,
// in hex. It reads the blob once per boot.
func (m *Memory) Verify(ctx context.Context, blob *os.File, want string) error {
	got, err := m.Digest(ctx, blob, true)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: %s: its content is sha256:%s, not sha256:%s: remove the image and pull it again", errDamaged, blob.Name(), got, want)
	}
	return nil
}
