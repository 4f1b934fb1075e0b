package object

import (
	"errors"
	"net/http"
	"testing"

	"github.com/minio/minio-go/v7"
)

// sums are those of a content.
func sums(content []byte) []Sum {
	all := []Sum{{Name: "CRC64NVME"}, {Name: "CRC32C"}, {Name: "CRC32"}, {Name: "MD5"}}
	for i := range all {
		h := all[i].newHash()
		h.Write(content)
		all[i].Value = h.Sum(nil)
	}
	return all
}

func TestVerified(t *testing.T) {
	f := newFake(t, 60*BlockSize+3)
	for _, sum := range sums(f.content) {
		f.info.Sum = sum
		o := f.open(t, 8<<20)
		for off := int64(0); off < f.info.Size; off += 100 << 10 {
			f.check(t, o, off, 100<<10)
		}
		if !o.Verified() {
			t.Errorf("%s: not verified", sum.Name)
		}
	}
}

// Of an object whose bytes are wrong the last block is an error, and each read after it.
func TestWrongSum(t *testing.T) {
	f := newFake(t, 60*BlockSize+3)
	all := sums(f.content)
	f.content[12345]++
	for _, sum := range all {
		f.info.Sum = sum
		o := f.open(t, 8<<20)
		last := f.info.Size / BlockSize * BlockSize
		for off := int64(0); off < last; off += BlockSize { // the end is fetched before it is read
			if _, err := o.ReadAt(t.Context(), make([]byte, BlockSize), off); err != nil && !errors.Is(err, ErrChecksum) {
				t.Errorf("%s: %v", sum.Name, err)
			}
		}
		for _, off := range []int64{last, 0} {
			if _, err := o.ReadAt(t.Context(), make([]byte, 1), off); !errors.Is(err, ErrChecksum) {
				t.Errorf("%s: %v", sum.Name, err)
			}
		}
	}
}

// Reads that leave something out are served, and not verified.
func TestNotVerified(t *testing.T) {
	f := newFake(t, 60*BlockSize+3)
	f.info.Sum = sums(nil)[0]
	o := f.open(t, 4<<20)
	for _, block := range []int64{60, 3, 0, 1, 2, 60} {
		f.check(t, o, block*BlockSize, 1)
	}
	settled(t, o)
	if o.Verified() {
		t.Error("verified")
	}
	// An object with a key of its own has an ETag that is no MD5. A list does not say it.
	f.info.Sum = sums(nil)[3]
	f.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("X-Amz-Server-Side-Encryption", "aws:kms")
		return false
	}
	o = f.open(t, 4<<20)
	f.check(t, o, 0, len(f.content))
	if o.Verified() {
		t.Error("verified")
	}
}

func TestSumOf(t *testing.T) {
	kms := http.Header{"X-Amz-Server-Side-Encryption": {"aws:kms"}}
	const etag = "5d41402abc4b2a76b9719d911017c592"
	for _, c := range []struct {
		object minio.ObjectInfo
		want   string
	}{
		{minio.ObjectInfo{ETag: etag, Size: 5}, "MD5"},
		{minio.ObjectInfo{ETag: etag, Size: maxMD5 + 1}, ""},
		{minio.ObjectInfo{ETag: etag + "-2"}, ""},
		{minio.ObjectInfo{ETag: etag, Metadata: kms}, ""},
		{minio.ObjectInfo{ETag: etag, ChecksumCRC64NVME: "AAAAAAAAAAA=", ChecksumCRC32: "AAAAAA=="}, "CRC64NVME"},
		{minio.ObjectInfo{ETag: etag + "-2", ChecksumCRC32C: "AAAAAA=="}, "CRC32C"},
		{minio.ObjectInfo{ETag: etag + "-2", ChecksumCRC32: "AAAAAA==-2"}, ""},
		{minio.ObjectInfo{ETag: etag + "-2", ChecksumCRC32: "AAAAAA==", ChecksumMode: "COMPOSITE"}, ""},
	} {
		if got := sumOf(c.object); got.Name != c.want {
			t.Errorf("%+v: %s, want %s", c.object, got.Name, c.want)
		}
	}
}

func BenchmarkSum(b *testing.B) {
	content := make([]byte, BlockSize)
	for _, s := range []Sum{{Name: "CRC64NVME"}, {Name: "CRC32C"}, {Name: "CRC32"}, {Name: "MD5"}} {
		b.Run(s.Name, func(b *testing.B) {
			h := s.newHash()
			b.SetBytes(BlockSize)
			for b.Loop() {
				h.Write(content)
			}
		})
	}
}
