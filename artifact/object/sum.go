package object

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"net/http"
	"strings"

	"github.com/minio/crc64nvme"
	"github.com/minio/minio-go/v7"
)

const (
	// maxMD5 is the size of the largest object whose MD5 is verified. MD5 takes about 1.6 s of a processor per GB, more
	// than all the rest of a read. The CRCs take less than a tenth of that.
	maxMD5 = 64 << 20
	// maxLag is how far reads may be in front of the verification, in blocks. Blocks have to be in memory for it.
	maxLag = 4 << 20 / BlockSize
)

// Sum is a checksum over a whole object.
//
// It is verified while the object is read from its beginning to its end. The read of the last block fails if it is
// wrong; what came before has been served by then. Reads that leave out parts, or come back to them late, are not
// verified: S3 has no checksums of ranges.
type Sum struct {
	Name  string // CRC64NVME, CRC32C, CRC32 or MD5
	Value []byte // nil if the store gives no checksum of the whole
}

// newHash returns what computes the sum.
func (s Sum) newHash() hash.Hash {
	switch s.Name {
	case "CRC64NVME":
		return crc64nvme.New()
	case "CRC32C":
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case "CRC32":
		return crc32.NewIEEE()
	case "MD5":
		return md5.New()
	}
	return nil
}

// sumOf returns the checksum that a store gives with an object, the cheapest.
func sumOf(o minio.ObjectInfo) Sum {
	if o.ChecksumMode != "COMPOSITE" { // that is a sum of the sums of parts
		for _, s := range []struct {
			name, text string
			size       int
		}{{"CRC64NVME", o.ChecksumCRC64NVME, 8}, {"CRC32C", o.ChecksumCRC32C, 4}, {"CRC32", o.ChecksumCRC32, 4}} {
			if value, err := base64.StdEncoding.DecodeString(s.text); err == nil && len(value) == s.size {
				return Sum{s.name, value}
			}
		}
	}
	// The ETag of an object of one part is its MD5 in nearly all stores. That of several parts has a dash.
	if value, err := hex.DecodeString(strings.Trim(o.ETag, `"`)); err == nil && len(value) == md5.Size && o.Size <= maxMD5 && !isEncrypted(o.Metadata) {
		return Sum{"MD5", value}
	}
	return Sum{}
}

// isEncrypted reports whether an object has a key of its own: then its ETag is no MD5.
func isEncrypted(header http.Header) bool {
	return strings.HasPrefix(header.Get("X-Amz-Server-Side-Encryption"), "aws:kms") ||
		header.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm") != ""
}

// verifier computes the sum of a content block by block, in order, as they are loaded. It is guarded by the cache's lock.
type verifier struct {
	hash    hash.Hash
	next    int64 // block
	running bool
	moved   chan struct{} // closed when next has changed or running has ended
}

// verify begins to compute where it is possible.
func (f *content) verify() {
	if h := f.info.Sum.newHash(); h != nil && f.info.Sum.Value != nil && !strings.HasSuffix(f.bucket.Name, "--x-s3") { // whose ETags are no MD5
		f.sum = &verifier{hash: h, moved: make(chan struct{})}
	}
}

// advance goes on with the blocks that are loaded. The caller holds the cache's lock.
func (f *content) advance() {
	v := f.sum
	if v == nil || v.running || f.blocks[v.next] == nil || !f.blocks[v.next].loaded {
		return
	}
	v.running = true
	go func() {
		c := f.cache
		c.mu.Lock()
		defer c.mu.Unlock()
		for f.sum == v {
			b := f.blocks[v.next]
			if b == nil || !b.loaded {
				break
			}
			c.pin(b)
			c.mu.Unlock()
			v.hash.Write(b.data)
			c.mu.Lock()
			c.unpin(b)
			v.next++
			f.compare(v)
			v.wake()
		}
		v.running = false
		v.wake()
	}()
}

func (v *verifier) wake() {
	close(v.moved)
	v.moved = make(chan struct{})
}

// compare ends the verification after the last block.
func (f *content) compare(v *verifier) {
	if v.next < blocksOf(f.info.Size) || f.sum != v {
		return
	}
	f.sum = nil
	if got := v.hash.Sum(nil); !bytes.Equal(got, f.info.Sum.Value) {
		f.corrupt = named(f.bucket, f.info, fmt.Errorf("%w: %s %x, read %x", ErrChecksum, f.info.Sum.Name, f.info.Sum.Value, got))
	} else {
		f.verified = true
	}
}

// verification waits until the verification is near a block, and for that of the whole if the block is the last.
func (f *content) verification(ctx context.Context, index int64) error {
	last := index == blocksOf(f.info.Size)-1
	for f.sum != nil && (f.sum.running && index-f.sum.next > maxLag || last && (f.sum.running || f.isLoading())) {
		if err := f.cache.await(ctx, f.sum.moved); err != nil {
			return err
		}
	}
	return f.corrupt
}

// isLoading reports whether a block that the verification needs is being loaded.
func (f *content) isLoading() bool {
	for index := f.sum.next; index < blocksOf(f.info.Size); index++ {
		b := f.blocks[index]
		if b == nil {
			return false
		}
		if !b.loaded {
			return true
		}
	}
	return false
}
