package artifact

import (
	"context"
	"io"
	"math"
	"os"
	"sync"

	"github.com/minio/minio-go/v7"
)

// growing is a file that is saved while it is written.
type growing struct {
	file *os.File
	ctx  context.Context // ends when the writer or the upload has failed: the other one then stops, too

	lock    sync.Mutex
	change  *sync.Cond
	size    int64 // so far
	awaited int64 // wait waits for more bytes than that
	whole   bool
}

func newGrowing(ctx context.Context, f *os.File) *growing {
	g := &growing{file: f, ctx: ctx}
	g.change = sync.NewCond(&g.lock)
	return g
}

// Write appends to the file.
func (g *growing) Write(p []byte) (int, error) {
	n, err := g.file.Write(p)
	g.lock.Lock()
	defer g.lock.Unlock()
	g.size += int64(n)
	if g.size > g.awaited {
		g.change.Broadcast()
	}
	if err == nil {
		err = g.ctx.Err()
	}
	return n, err
}

// end marks the file as whole.
func (g *growing) end() {
	g.lock.Lock()
	defer g.lock.Unlock()
	g.whole = true
	g.change.Broadcast()
}

// wait waits until the file has more than n bytes or is whole. It returns the size so far. Only one may wait at a time.
func (g *growing) wait(n int64) (size int64, whole bool, err error) {
	defer context.AfterFunc(g.ctx, func() {
		g.lock.Lock()
		defer g.lock.Unlock()
		g.change.Broadcast()
	})()
	g.lock.Lock()
	defer g.lock.Unlock()
	g.awaited = n
	for g.size <= n && !g.whole {
		if err := g.ctx.Err(); err != nil {
			return g.size, false, err
		}
		g.change.Wait()
	}
	return g.size, g.whole, nil
}

// SaveWritten writes an empty file by write, and saves it as Store.Save does. S3 gets the first parts of a large file
// while write goes on. An error of write is returned as it is, and nothing is saved then. If the store refuses the file
// before it is whole, the writer's next call fails.
func SaveWritten(ctx context.Context, store Store, to *os.File, write func(io.Writer) error) error {
	s, ok := store.(*s3)
	if !ok {
		if err := write(to); err != nil {
			return err
		}
		return store.Save(ctx, to)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	file := newGrowing(ctx, to)
	var writeErr error
	var writing sync.WaitGroup
	writing.Go(func() {
		err := write(file)
		switch {
		case err == nil:
			file.end()
			return
		case ctx.Err() == nil: // otherwise, the upload has failed before
			writeErr = err
		}
		cancel()
	})
	err := s.saveGrowing(ctx, file)
	cancel()
	writing.Wait()
	if writeErr != nil {
		return writeErr
	}
	return err
}

func (s *s3) saveGrowing(ctx context.Context, from *growing) error {
	return s.save(ctx, func(client *minio.Core) error {
		err := s.putGrowing(ctx, client, from, s.at.Key)
		if err != nil && isTransient(err) {
			_, _, _ = from.wait(math.MaxInt64) // a store that is away has the time of all attempts after that to come back
		}
		return failed("put file", err)
	})
}
