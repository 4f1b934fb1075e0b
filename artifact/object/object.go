package object

import (
	"context"
	"errors"
	"io"
)

// Object is an object that is open for reading. It costs little until it is read.
type Object struct {
	cache  *Cache
	bucket Bucket
	info   Info

	// Guarded by the cache's lock.
	content *content // nil before the first read
	streams []*stream
	closed  bool
}

// Open returns an object that is read as info describes it. It asks the store nothing.
func (c *Cache) Open(b Bucket, info Info) *Object {
	return &Object{cache: c, bucket: b, info: info}
}

// Info returns what the object was opened with.
func (o *Object) Info() Info { return o.info }

// Close ends requests that fetch ahead. Blocks remain in the cache for another Open of the same version.
func (o *Object) Close() {
	c := o.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	o.rest()
	if f := o.content; f != nil {
		if f.opens--; f.opens == 0 {
			for r := range f.fetches {
				r.cancel(errCalledOff)
			}
		}
		f.forget()
	}
}

// Rest ends requests that fetch ahead. It is for an object that nobody reads now and that stays open.
func (o *Object) Rest() {
	o.cache.mu.Lock()
	defer o.cache.mu.Unlock()
	o.rest()
}

func (o *Object) rest() {
	for _, s := range o.streams {
		o.cache.stop(s)
	}
	o.streams = nil
}

// Prefetch fetches a small object ahead, and reports false if there is no room for that now.
func (o *Object) Prefetch() bool {
	c := o.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	n := blocksOf(o.info.Size)
	if n == 0 || n > maxPrefetch || o.closed {
		return true
	}
	// What was fetched ahead and is not read yet has half of the memory, as what streams fetch.
	if c.fetching >= Parallel || c.ahead.Len()*2 >= len(c.memory)/BlockSize {
		return false
	}
	f, err := o.use()
	if err != nil || len(f.blocks) > 0 || f.failed != nil {
		return true
	}
	var blocks []*block
	for index := range n {
		memory := c.take(false)
		if memory == nil {
			break
		}
		blocks = append(blocks, f.add(index, memory, true))
	}
	if len(blocks) == 0 {
		return false
	}
	f.fetch(blocks, true)
	return true
}

// Verified reports whether all that was read is what the store's checksum says (see [Sum]).
func (o *Object) Verified() bool {
	o.cache.mu.Lock()
	defer o.cache.mu.Unlock()
	return o.content != nil && o.content.verified
}

// Stats returns the sums of this version of the object.
func (o *Object) Stats() Stats {
	o.cache.mu.Lock()
	defer o.cache.mu.Unlock()
	if o.content == nil {
		return Stats{}
	}
	return o.content.stats
}

// use returns the content, from the first read on. The caller holds the cache's lock.
func (o *Object) use() (*content, error) {
	c := o.cache
	if o.closed {
		return nil, &Error{Bucket: o.bucket.Name, Key: o.info.Key, Err: ErrClosed}
	}
	if o.content == nil {
		id := identity{client: o.bucket.Client, sse: o.bucket.customer(), bucket: o.bucket.Name, key: o.info.Key, version: o.info.Version, etag: o.info.ETag, modTime: o.info.Modified.UnixNano()}
		f := c.contents[id]
		if f == nil {
			f = &content{cache: c, id: id, bucket: o.bucket, info: o.info, blocks: map[int64]*block{}, fetches: map[*fetch]struct{}{}}
			f.verify()
			c.contents[id] = f
		}
		f.opens++
		o.content = f
	}
	return o.content, nil
}

// ReadAt reads as io.ReaderAt does. The context ends the wait, not the request: what arrives later is kept.
func (o *Object) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < o.info.Size {
		v, err := o.View(ctx, off, min(len(p)-n, int(BlockSize-off%BlockSize))) // in one block
		if err != nil {
			return n, err
		}
		for _, part := range v.Parts {
			m := copy(p[n:], part)
			n, off = n+m, off+int64(m)
		}
		v.Release()
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// View is a part of an object, in the memory of the cache.
type View struct {
	Parts  [][]byte // together they are the part
	cache  *Cache
	blocks []*block
}

// Release ends the use of the parts. Another read may then replace them.
func (v *View) Release() {
	v.cache.mu.Lock()
	defer v.cache.mu.Unlock()
	v.release()
}

func (v *View) release() {
	for _, b := range v.blocks {
		v.cache.unpin(b)
	}
	v.blocks, v.Parts = nil, nil
}

// View returns at most n bytes from off, less only at the end of the object or if n is larger than [BlockSize]. The
// caller releases it soon: the cache cannot use its memory for others before.
func (o *Object) View(ctx context.Context, off int64, n int) (*View, error) {
	v := &View{cache: o.cache}
	if off < 0 || off >= o.info.Size || n <= 0 {
		return v, nil
	}
	end := off + min(int64(n), BlockSize, o.info.Size-off)
	err := v.fill(ctx, o, off, end)
	if errors.Is(err, errNoMemory) {
		return o.copied(ctx, off, end)
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// fill gets the blocks of a view.
func (v *View) fill(ctx context.Context, o *Object, off, end int64) error {
	v.cache.mu.Lock()
	defer v.cache.mu.Unlock()
	f, err := o.use()
	if err != nil {
		return err
	}
	f.plan(o.follow(off, end), off, end)
	first, last := off/BlockSize, (end-1)/BlockSize
	for index := first; index <= last; index++ {
		b, err := f.acquire(ctx, index, last, index == first)
		if err != nil {
			v.release()
			return err
		}
		v.blocks = append(v.blocks, b)
		v.Parts = append(v.Parts, b.data[max(off-index*BlockSize, 0):min(end-index*BlockSize, int64(len(b.data)))])
	}
	f.stats.Served += end - off
	v.cache.stats.Served += end - off
	return nil
}

// copied returns a view that is no part of the cache.
func (o *Object) copied(ctx context.Context, off, end int64) (*View, error) {
	p := make([]byte, end-off)
	for at := off; at < end; {
		next := min(end, (at/BlockSize+1)*BlockSize)
		if _, err := o.ReadAt(ctx, p[at-off:next-off], at); err != nil {
			return nil, err
		}
		at = next
	}
	return &View{Parts: [][]byte{p}, cache: o.cache}, nil
}
