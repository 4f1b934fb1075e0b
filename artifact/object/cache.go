package object

import (
	"container/list"
	"context"
	"fmt"
	"sync"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"
)

// BlockSize is what a read of one byte fetches, in bytes.
const BlockSize = 128 << 10

// minBlocks lets a few reads that each span two blocks make progress at the same time.
const minBlocks = 16

// Cache keeps blocks of objects in a bounded memory that all objects of a server share.
//
// The memory is mapped outside Go's heap: the collector would let a heap of blocks grow to twice its size.
type Cache struct {
	mu       sync.Mutex
	memory   []byte
	free     [][]byte
	read     list.List     // loaded blocks that nobody uses now, and that were read: the newest in front
	ahead    list.List     // those that were fetched ahead and not yet read
	freed    chan struct{} // closed when there may be memory for those who wait
	waiting  int
	contents map[identity]*content
	streams  list.List // streams that fetch ahead, the newest in front
	fetching int       // requests that fetch ahead
	stats    Stats
	patience patience
}

// identity is that of a version of an object. Clients may have different rights: what one client has loaded is not
// served to another.
type identity struct {
	client  *minio.Core
	sse     string // the customer's key
	bucket  string
	key     string
	version string
	etag    string
	modTime int64
}

// NewCache returns a cache of at most limit bytes. Memory that is not used yet takes no room.
func NewCache(limit int64) (*Cache, error) {
	n := max(limit/BlockSize, minBlocks)
	memory, err := unix.Mmap(-1, 0, int(n*BlockSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes for blocks: %w", n*BlockSize, err)
	}
	c := &Cache{memory: memory, freed: make(chan struct{}), contents: map[identity]*content{}, patience: usual}
	for at := len(memory) - BlockSize; at >= 0; at -= BlockSize {
		c.free = append(c.free, memory[at:at+BlockSize:at+BlockSize])
	}
	return c, nil
}

// Close frees the memory. All objects have to be closed, and their views released. Requests that are still on their way
// are waited for.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.contents {
		for r := range f.fetches {
			r.cancel(errCalledOff)
		}
	}
	for len(c.free)+c.read.Len()+c.ahead.Len() < len(c.memory)/BlockSize {
		c.waiting++
		_ = c.await(context.Background(), c.freed)
		c.waiting--
	}
	memory := c.memory
	c.memory, c.free = nil, nil
	return unix.Munmap(memory)
}

// Stats returns the sums over all objects.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// take returns memory for a block, or nil. It removes another block if it must. Only a block that somebody waits for
// replaces one that was fetched ahead and not yet read.
func (c *Cache) take(waited bool) []byte {
	if len(c.free) == 0 {
		from := &c.read
		if from.Len() == 0 && waited {
			from = &c.ahead
		}
		if from.Len() == 0 {
			return nil
		}
		c.remove(from.Back().Value.(*block))
	}
	last := len(c.free) - 1
	memory := c.free[last]
	c.free = c.free[:last]
	return memory
}

// remove removes a block that nobody uses, and frees its memory.
func (c *Cache) remove(b *block) {
	c.unlist(b)
	c.free = append(c.free, b.data[:BlockSize:BlockSize])
	b.data = nil
	b.of.drop(b)
	c.wake()
}

// wake lets all look again who wait for memory.
func (c *Cache) wake() {
	if c.waiting == 0 {
		return
	}
	close(c.freed)
	c.freed = make(chan struct{})
}

// pin keeps a block from being removed.
func (c *Cache) pin(b *block) {
	b.pins++
	c.unlist(b)
}

// unpin reverts pin.
func (c *Cache) unpin(b *block) {
	b.pins--
	c.enlist(b)
}

func (c *Cache) unlist(b *block) {
	if b.elem != nil {
		b.list.Remove(b.elem)
		b.elem = nil
	}
}

// enlist puts a loaded block that nobody uses into its list.
func (c *Cache) enlist(b *block) {
	if b.pins > 0 || !b.loaded {
		return
	}
	b.list = &c.read
	if b.ahead {
		b.list = &c.ahead
	}
	b.elem = b.list.PushFront(b)
	c.wake()
}
