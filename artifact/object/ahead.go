package object

import (
	"container/list"
	"time"
)

const (
	// Parallel is how many requests fetch ahead at the same time, over all objects of a cache.
	Parallel = 8
	// maxWindow is the most that a stream fetches ahead, in bytes.
	maxWindow = 16 << 20
	// maxRange is the most that one request fetches ahead, in bytes.
	maxRange = 4 << 20
	// slack is how far reads of a stream may overtake each other, in bytes: the kernel sends several at once.
	slack = 1 << 20
	// streamsKept is how many streams an object has: a file may be read at a few places by turns.
	streamsKept = 4
	// maxPrefetch is the size of the largest object that is fetched ahead as a whole, in blocks.
	maxPrefetch = 4
	// rest is how long a stream may go without a read before it has no more share of the memory.
	rest = 5 * time.Second
)

// stream is a sequence of reads.
type stream struct {
	next    int64 // the end of the furthest read
	run     int64 // bytes that were read in sequence
	planned int64 // the block before which all was requested
	fetches []*fetch
	used    time.Time
	elem    *list.Element // among the cache's streams, when it fetches ahead
}

// follow returns the stream that a read from off until end goes on with, or a new one.
func (o *Object) follow(off, end int64) *stream {
	now := time.Now()
	for i, s := range o.streams {
		if off < s.next-slack || off > s.next+slack {
			continue
		}
		copy(o.streams[1:i+1], o.streams[:i]) // to the front
		o.streams[0] = s
		s.used = now
		if end > s.next {
			s.run += min(end-s.next, end-off)
			s.next = end
		}
		return s
	}
	s := &stream{next: end, planned: off / BlockSize, used: now}
	if off == 0 {
		s.run = end // whoever begins at the beginning will probably go on
	}
	if len(o.streams) == streamsKept {
		o.cache.stop(o.streams[streamsKept-1])
		o.streams = o.streams[:streamsKept-1]
	}
	o.streams = append([]*stream{s}, o.streams...)
	return s
}

// share returns how much a stream may fetch ahead: half of the memory is for all streams that were read lately.
func (c *Cache) share(s *stream) int64 {
	if s.elem == nil {
		s.elem = c.streams.PushFront(s)
	} else {
		c.streams.MoveToFront(s.elem)
	}
	for {
		oldest := c.streams.Back().Value.(*stream)
		if s.used.Sub(oldest.used) < rest {
			break
		}
		c.streams.Remove(oldest.elem)
		oldest.elem = nil
	}
	return int64(len(c.memory)) / 2 / int64(c.streams.Len())
}

// stop ends what a stream fetches ahead.
func (c *Cache) stop(s *stream) {
	for _, r := range s.fetches {
		r.cancel(errCalledOff)
	}
	s.fetches = nil
	if s.elem != nil {
		c.streams.Remove(s.elem)
		s.elem = nil
	}
}

// plan requests what a read from off until end makes likely to be read next, together with what the read itself needs.
func (f *content) plan(s *stream, off, end int64) {
	c := f.cache
	if s.run < BlockSize/4 || f.failed != nil {
		return
	}
	window := min(s.run, maxWindow, c.share(s))
	limit := blocksOf(min(end+window, f.info.Size))
	length := min(max(window/2, BlockSize), maxRange) / BlockSize
	s.planned = max(s.planned, off/BlockSize)
	// A range that is shorter than it could be costs a request, except at the end of the object.
	for s.planned < limit && (limit-s.planned >= length || limit == blocksOf(f.info.Size)) && c.fetching < Parallel {
		if f.blocks[s.planned] != nil {
			s.planned++
			continue
		}
		var blocks []*block
		for ; int64(len(blocks)) < length && s.planned < limit && f.blocks[s.planned] == nil; s.planned++ {
			memory := c.take(false)
			if memory == nil {
				break
			}
			blocks = append(blocks, f.add(s.planned, memory, true))
		}
		if len(blocks) == 0 {
			return
		}
		s.fetches = append(running(s.fetches), f.fetch(blocks, true))
	}
}

// running returns the fetches that have not ended.
func running(all []*fetch) []*fetch {
	left := all[:0]
	for _, r := range all {
		if !r.ended {
			left = append(left, r)
		}
	}
	clear(all[len(left):])
	return left
}
