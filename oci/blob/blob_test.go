package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobs is a Source that maps digests to blobs.
type blobs map[digest.Digest][]byte

func (b blobs) Open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	data, ok := b[d.Digest]
	if !ok {
		return nil, ErrMissing
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func TestReadVerifies(t *testing.T) {
	whole := []byte("content")
	d := ocispec.Descriptor{Digest: digest.FromBytes(whole), Size: int64(len(whole))}
	of := func(size int64) ocispec.Descriptor { return ocispec.Descriptor{Digest: d.Digest, Size: size} }
	for name, c := range map[string]struct {
		d    ocispec.Descriptor
		held []byte
		want string
		is   error
	}{
		"whole":       {d, whole, "", nil},
		"missing":     {ocispec.Descriptor{Digest: digest.FromString("other"), Size: 1}, whole, "it is not there", ErrMissing},
		"other bytes": {d, []byte("Content"), "another content", ErrDamaged},
		"shorter":     {d, whole[1:], "another content", ErrDamaged},
		"longer":      {d, append(whole, 'x'), "larger than the 7 bytes", ErrDamaged},
		"too large":   {of(11), whole, "the limit is 10", nil},
		"negative":    {of(-1), whole, "the limit is 10", nil},
		"no digest":   {ocispec.Descriptor{Digest: "sha256:../../x", Size: 1}, whole, "sha256:../../x", nil},
	} {
		data, err := Read(t.Context(), blobs{d.Digest: c.held}, c.d, 10)
		if c.want == "" {
			if err != nil || !bytes.Equal(data, whole) {
				t.Errorf("%s: got %q, %v", name, data, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// One limit on the unpacked size applies to all layers of an image together.
func TestUnpackingIsBounded(t *testing.T) {
	data := bytes.Repeat([]byte("layer"), 1000)
	u := &Unpacking{left: int64(2*len(data)) - 1}
	for n, want := range []string{"", "the image has more than 17179869184 bytes when it is unpacked"} {
		layer, err := u.Open(t.Context(), blobs{"": data}, ocispec.Descriptor{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, layer); fmt.Sprint(err) != want && (err != nil || want != "") {
			t.Errorf("layer %d: %v, want %q", n, err, want)
		}
		layer.Close()
	}
}
