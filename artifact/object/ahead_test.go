package object

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// fake answers ranges of an object as a store does, and keeps what it is asked.
type fake struct {
	bucket  Bucket
	content []byte
	info    Info
	fault   func(n int, w http.ResponseWriter, r *http.Request) bool // answers the nth request in the place of the usual

	mu     sync.Mutex
	ranges []string
}

// newFake starts a store. Its object has n bytes that differ from block to block.
func newFake(t testing.TB, n int) *fake {
	t.Helper()
	f := &fake{content: make([]byte, n)}
	for i := range f.content {
		f.content[i] = byte(i ^ i>>8 ^ i>>16)
	}
	sum := md5.Sum(f.content)
	f.info = Info{Key: "key", Size: int64(n), ETag: hex.EncodeToString(sum[:]), Modified: time.Unix(1e9, 0)}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: Parallel}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := minio.NewCore(strings.TrimPrefix(server.URL, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4("a", "s", ""), Region: "r", MaxRetries: 1, Transport: transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.bucket = Bucket{Client: client, Name: "bucket"}
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	n := len(f.ranges)
	f.ranges = append(f.ranges, strings.TrimPrefix(r.Header.Get("Range"), "bytes="))
	f.mu.Unlock()
	if f.fault != nil && f.fault(n, w, r) {
		return
	}
	f.serve(w, r)
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"`+f.info.ETag+`"`)
	if match := r.Header.Get("If-Match"); match != `"`+f.info.ETag+`"` {
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	http.ServeContent(w, r, "", f.info.Modified, bytes.NewReader(f.content))
}

// asked returns the ranges that were asked for, as blocks.
func (f *fake) asked() (blocks []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, span := range f.ranges {
		var first, last int64
		if n, _ := fmt.Sscanf(span, "%d-%d", &first, &last); n == 2 {
			blocks = append(blocks, fmt.Sprintf("%d+%d", first/BlockSize, blocksOf(last+1)-first/BlockSize))
		}
	}
	f.ranges = nil
	return blocks
}

func (f *fake) open(t testing.TB, limit int64) *Object {
	t.Helper()
	c, err := NewCache(limit)
	if err != nil {
		t.Fatal(err)
	}
	o := c.Open(f.bucket, f.info)
	t.Cleanup(func() { f.end(t, o) })
	return o
}

// end closes an object, and fails the test if it has left anything.
func (f *fake) end(t testing.TB, o *Object) {
	o.Close()
	c := o.cache
	deadline := time.Now().Add(10 * time.Second)
	for {
		c.mu.Lock()
		fetches := 0
		for _, content := range c.contents {
			fetches += len(content.fetches)
		}
		kept, ahead := c.read.Len()+c.ahead.Len(), c.fetching
		pinned := len(c.memory)/BlockSize - len(c.free) - kept
		c.mu.Unlock()
		if fetches == 0 && ahead == 0 && pinned == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left behind: %d requests, %d ahead, %d blocks in use", fetches, ahead, pinned)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// check reads and compares.
func (f *fake) check(t testing.TB, o *Object, off int64, n int) {
	t.Helper()
	p := make([]byte, n)
	got, err := o.ReadAt(context.Background(), p, off)
	want := f.content[min(off, f.info.Size):min(off+int64(n), f.info.Size)]
	if string(p[:got]) != string(want) || err != nil && err != io.EOF {
		t.Errorf("read %d bytes at %d: %d, %v", n, off, got, err)
	}
}

// settled waits until nothing is requested any more.
func settled(t testing.TB, o *Object) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		o.cache.mu.Lock()
		n := len(o.content.fetches)
		o.cache.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("requests do not end")
		}
	}
}

// Reads at random fetch nothing but their blocks.
func TestRandom(t *testing.T) {
	f := newFake(t, 64*BlockSize)
	o := f.open(t, 32<<20)
	for _, block := range []int64{7, 50, 20, 33, 60, 2, 41} {
		f.check(t, o, block*BlockSize+5000, 4096)
		settled(t, o)
		if asked := f.asked(); fmt.Sprint(asked) != fmt.Sprintf("[%d+1]", block) {
			t.Errorf("block %d: asked for %v", block, asked)
		}
	}
	v, err := o.View(t.Context(), 10*BlockSize-1, 2) // one request for two blocks
	if err != nil || len(v.Parts) != 2 {
		t.Fatal(err)
	}
	v.Release()
	settled(t, o)
	if asked := f.asked(); fmt.Sprint(asked) != "[9+2]" {
		t.Errorf("asked for %v", asked)
	}
}

// A sequence fetches ahead as much as it has read, each block once, and less for a short head than a long one.
func TestWindowGrows(t *testing.T) {
	f := newFake(t, 512*BlockSize)
	o := f.open(t, 64<<20)
	last := int64(0)
	for off := int64(0); off < f.info.Size; off += BlockSize {
		f.check(t, o, off, BlockSize)
		settled(t, o)
		moved, read := o.Stats().Moved, off+BlockSize
		if moved > 2*read+BlockSize || moved-read > maxWindow+maxRange {
			t.Fatalf("after %d bytes %d were moved", read, moved)
		}
		last = max(last, moved-read)
	}
	if last < maxWindow/2 {
		t.Errorf("at most %d bytes ahead", last)
	}
	if s := o.Stats(); s.Moved != f.info.Size || s.Requests > 60 {
		t.Errorf("%+v", s)
	}
}

// Another place of the file ends what the first fetches ahead when the object has too many of them.
func TestManyPlaces(t *testing.T) {
	f := newFake(t, 512*BlockSize)
	o := f.open(t, 64<<20)
	for place := range int64(10) {
		for i := range int64(4) {
			f.check(t, o, (place*50+i)*BlockSize, BlockSize)
		}
	}
	o.cache.mu.Lock()
	if len(o.streams) != streamsKept || o.cache.streams.Len() != streamsKept {
		t.Errorf("%d streams, %d fetch ahead", len(o.streams), o.cache.streams.Len())
	}
	o.cache.mu.Unlock()
	settled(t, o)
	if moved := o.Stats().Moved; moved > 2*40*BlockSize {
		t.Errorf("%d blocks moved", moved/BlockSize)
	}
	o.Rest()
	o.cache.mu.Lock()
	if o.cache.streams.Len() != 0 {
		t.Error("a stream of an object that rests has a share of the memory")
	}
	o.cache.mu.Unlock()
}

// Reads that overtake each other are one sequence.
func TestOvertaking(t *testing.T) {
	f := newFake(t, 256*BlockSize)
	o := f.open(t, 64<<20)
	for base := int64(0); base < 256; base += 4 {
		for _, i := range []int64{1, 0, 3, 2} {
			f.check(t, o, (base+i)*BlockSize, BlockSize)
		}
	}
	if s := o.Stats(); s.Requests > 40 || len(o.streams) != 1 {
		t.Errorf("%+v, %d streams", s, len(o.streams))
	}
}

// Many readers of one block make one request.
func TestOneRequest(t *testing.T) {
	f := newFake(t, 4*BlockSize)
	f.fault = func(int, http.ResponseWriter, *http.Request) bool { time.Sleep(50 * time.Millisecond); return false }
	o := f.open(t, 4<<20)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { f.check(t, o, 2*BlockSize+int64(i), 100) })
	}
	all.Wait()
	if asked := f.asked(); len(asked) != 1 {
		t.Errorf("asked for %v", asked)
	}
}

// The memory is bounded, whatever is read at the same time, and all reads come to their end.
func TestBounded(t *testing.T) {
	f := newFake(t, 200*BlockSize)
	o := f.open(t, 0)
	if n := len(o.cache.memory) / BlockSize; n != minBlocks {
		t.Fatalf("%d blocks", n)
	}
	var all sync.WaitGroup
	for i := range int64(60) {
		all.Go(func() {
			for j := range int64(10) {
				v, err := o.View(context.Background(), (i*j*7%199)*BlockSize+BlockSize/2, BlockSize) // in two blocks
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Millisecond)
				v.Release()
			}
			for off := i * 3 * BlockSize; off < (i*3+20)*BlockSize; off += 64 << 10 {
				f.check(t, o, off, 64<<10)
			}
		})
	}
	all.Wait()
}

// What is read stays in the cache for another object of the same version, and goes with the oldest first.
func TestEviction(t *testing.T) {
	f := newFake(t, 40*BlockSize)
	o := f.open(t, minBlocks*BlockSize)
	read := func(blocks ...int64) {
		for _, b := range blocks {
			f.check(t, o, b*BlockSize+1, 1)
			settled(t, o)
		}
	}
	for b := range int64(minBlocks) {
		read(b * 17 % 40)
	}
	f.asked()
	again := o.cache.Open(f.bucket, f.info)
	defer again.Close()
	f.check(t, again, 1, 1)
	read(17, 34)
	if asked := f.asked(); len(asked) != 0 {
		t.Errorf("asked again for %v", asked)
	}
	read(1) // it takes the place of 3 * 17 % 40
	f.asked()
	read(0, 17, 34, 1)
	if asked := f.asked(); len(asked) != 0 {
		t.Errorf("asked again for %v", asked)
	}
	read(11)
	if asked := f.asked(); fmt.Sprint(asked) != "[11+1]" {
		t.Errorf("asked again for %v", asked)
	}
}
