package object

import (
	"container/list"
	"context"
	"errors"
	"time"
)

// content is a version of an object, with its blocks. All its fields are guarded by the cache's lock.
type content struct {
	cache   *Cache
	id      identity
	bucket  Bucket
	info    Info
	opens   int
	blocks  map[int64]*block
	fetches map[*fetch]struct{}

	failed error     // what the last request failed with
	until  time.Time // when a read may ask again, zero for never
	stats  Stats

	sum      *verifier // nil if there is nothing to verify any more
	verified bool
	corrupt  error // what the verification has found
}

// block is a part of a content.
type block struct {
	of     *content
	index  int64
	data   []byte        // mapped memory, as long as the block
	ready  chan struct{} // closed when it is loaded or has failed
	err    error         // valid after ready
	loaded bool
	ahead  bool // fetched ahead and not yet read
	pins   int
	list   *list.List
	elem   *list.Element
}

// blocksOf returns how many blocks a content has.
func blocksOf(size int64) int64 { return (size + BlockSize - 1) / BlockSize }

// drop forgets a block, and the content when nothing needs it.
func (f *content) drop(b *block) {
	if f.blocks[b.index] == b {
		delete(f.blocks, b.index)
	}
	f.forget()
}

func (f *content) forget() {
	if f.opens == 0 && len(f.blocks) == 0 && len(f.fetches) == 0 && f.cache.contents[f.id] == f {
		delete(f.cache.contents, f.id)
	}
}

// add makes a block that is not loaded yet.
func (f *content) add(index int64, memory []byte, ahead bool) *block {
	b := &block{of: f, index: index, data: memory[:min(BlockSize, f.info.Size-index*BlockSize)], ready: make(chan struct{}), ahead: ahead}
	f.blocks[index] = b
	return b
}

// errNoMemory means that a block must wait for memory.
var errNoMemory = errors.New("no memory for a block")

// acquire returns a loaded block. The caller holds the cache's lock, and unpins the block. It is fetched if it is missing, with those that follow it until
// last, as far as they are missing and there is memory. A caller that has pinned another block does not wait for memory:
// all might wait for each other.
func (f *content) acquire(ctx context.Context, index, last int64, wait bool) (*block, error) {
	c := f.cache
	hit := true
	for {
		if f.failed != nil && (f.until.IsZero() || time.Now().Before(f.until)) && (f.blocks[index] == nil || !f.blocks[index].loaded) {
			return nil, f.failed
		}
		b := f.blocks[index]
		if b == nil {
			memory := c.take(true)
			if memory == nil {
				if !wait {
					return nil, errNoMemory
				}
				c.waiting++
				err := c.await(ctx, c.freed)
				c.waiting--
				if err != nil {
					return nil, err
				}
				continue
			}
			blocks := []*block{f.add(index, memory, false)}
			for next := index + 1; next <= last && f.blocks[next] == nil; next++ {
				if memory = c.take(false); memory == nil {
					break
				}
				blocks = append(blocks, f.add(next, memory, true))
			}
			f.fetch(blocks, false)
			b = blocks[0]
		}
		c.pin(b)
		if !b.loaded && b.err == nil {
			hit = false
			if err := c.await(ctx, b.ready); err != nil {
				c.unpin(b)
				return nil, err
			}
		}
		if b.loaded {
			if err := f.verification(ctx, index); err != nil {
				c.unpin(b)
				return nil, err
			}
			b.ahead = false
			if hit {
				f.stats.Hits++
				c.stats.Hits++
			} else {
				f.stats.Misses++
				c.stats.Misses++
			}
			return b, nil
		}
		c.unpin(b)
		if !errors.Is(b.err, errCalledOff) {
			return nil, b.err
		}
	}
}

// await unlocks the cache until done is closed.
func (c *Cache) await(ctx context.Context, done <-chan struct{}) error {
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
