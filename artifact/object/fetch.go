package object

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"
)

// patience is how the cache bears failures.
type patience struct {
	// stall is how long a request may go without a byte before it is repeated.
	stall time.Duration
	// attempts is how often the store is asked for bytes before the read fails. Bytes that come start the count again.
	attempts int
	// first and longest bound the pause before the next attempt. Each is twice the one before, less up to a half at
	// random.
	first, longest time.Duration
	// failureLasts is how long reads fail with the last error before they ask the store again. A kernel that reads ahead
	// asks a second time for what has failed.
	failureLasts time.Duration
}

// usual bears a store that is away for 10 seconds.
var usual = patience{stall: 15 * time.Second, attempts: 8, first: 100 * time.Millisecond, longest: 5 * time.Second, failureLasts: 2 * time.Second}

// fetch loads consecutive blocks with one request, and goes on with another where it breaks off.
type fetch struct {
	of     *content
	ctx    context.Context
	cancel context.CancelCauseFunc
	blocks []*block
	done   int // blocks that are loaded
	filled int // bytes of the next block
	ahead  bool
	ended  bool
}

// fetch starts to load blocks. The caller holds the cache's lock.
func (f *content) fetch(blocks []*block, ahead bool) *fetch {
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &fetch{of: f, ctx: ctx, cancel: cancel, blocks: blocks, ahead: ahead}
	f.fetches[r] = struct{}{}
	if ahead {
		f.cache.fetching++
	}
	go r.run()
	return r
}

func (r *fetch) run() {
	defer r.cancel(nil)
	for attempt := 1; ; attempt++ {
		done, filled := r.done, r.filled
		err := r.attempt()
		if err == nil {
			r.end(nil)
			return
		}
		if r.done > done || r.filled > filled {
			attempt = 1
		}
		if attempt >= r.of.cache.patience.attempts || !isTransient(err) || errors.Is(err, errCalledOff) {
			r.end(err)
			return
		}
		r.count(func(s *Stats) { s.Retries++ })
		select {
		case <-r.ctx.Done():
			r.end(context.Cause(r.ctx))
			return
		case <-time.After(r.of.cache.patience.pause(attempt, rand.Float64())):
		}
	}
}

// pause returns how long to wait after an attempt.
func (p patience) pause(attempt int, random float64) time.Duration {
	longest := min(p.first<<min(attempt-1, 20), p.longest)
	return longest - time.Duration(random*float64(longest)/2)
}

// attempt requests what is missing.
func (r *fetch) attempt() (err error) {
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	stall := r.of.cache.patience.stall
	watch := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer watch.Stop()
	defer func() {
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
	}()
	last := r.blocks[len(r.blocks)-1]
	off, end := r.blocks[r.done].index*BlockSize+int64(r.filled), last.index*BlockSize+int64(len(last.data))
	r.count(func(s *Stats) { s.Requests++ })
	body, encrypted, err := r.of.bucket.open(ctx, r.of.info, off, end)
	if err != nil {
		return err
	}
	defer body.Close()
	if encrypted && r.of.info.Sum.Name == "MD5" {
		r.unverified()
	}
	for r.done < len(r.blocks) {
		b := r.blocks[r.done]
		n, err := body.Read(b.data[r.filled:])
		if n > 0 {
			watch.Reset(stall)
			if r.filled += n; r.filled == len(b.data) {
				r.loaded(b)
			}
		}
		switch {
		case err == nil || r.done == len(r.blocks):
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
	return nil
}

// count changes the sums.
func (r *fetch) count(change func(*Stats)) {
	c := r.of.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&r.of.stats)
	change(&c.stats)
}

// unverified ends the verification of what turns out to have no checksum.
func (r *fetch) unverified() {
	c := r.of.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := r.of.sum; v != nil {
		r.of.sum = nil
		v.wake()
	}
}

// loaded makes a block readable.
func (r *fetch) loaded(b *block) {
	c := r.of.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	r.done, r.filled = r.done+1, 0
	r.of.stats.Moved += int64(len(b.data))
	c.stats.Moved += int64(len(b.data))
	r.of.failed = nil
	b.loaded = true
	c.enlist(b)
	close(b.ready)
	if v := r.of.sum; v != nil {
		v.wake()
		r.of.advance()
	}
}

// end ends the fetch. Blocks that are not loaded fail with err.
func (r *fetch) end(err error) {
	c := r.of.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		final := !isTransient(err)
		if !errors.Is(err, errCalledOff) {
			err = named(r.of.bucket, r.of.info, err)
			r.of.failed, r.of.until = err, time.Now().Add(c.patience.failureLasts)
			if final {
				r.of.until = time.Time{}
			}
		}
		for _, b := range r.blocks[r.done:] {
			b.err = err
			c.free = append(c.free, b.data[:BlockSize:BlockSize])
			b.data = nil
			delete(r.of.blocks, b.index)
			close(b.ready)
		}
		c.wake()
	}
	if v := r.of.sum; v != nil {
		v.wake()
	}
	r.ended = true
	delete(r.of.fetches, r)
	if r.ahead {
		c.fetching--
	}
	r.of.forget()
}
