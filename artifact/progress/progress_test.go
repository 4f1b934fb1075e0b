package progress

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func newFile(t *testing.T) *os.File {
	t.Helper()
	f, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestWriteRead(t *testing.T) {
	f := newFile(t)
	if got, err := Read(f); got != nil || err != nil {
		t.Fatalf("an empty file: %v, %v", got, err)
	}
	for _, want := range [][]Artifact{
		{{Name: "a", Path: "/in/a", Object: "s3://b/a", Size: 1 << 40, Moved: 5, Used: 6, Requests: 7, Retries: 8, Hits: 9, Misses: 10}, {Name: "b", Output: true, State: "uploading"}},
		{{Name: "c"}},
	} {
		if err := Write(f, want); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(f); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	}
}

func TestLongListIsCut(t *testing.T) {
	f := newFile(t)
	var all []Artifact
	for i := range 1000 {
		all = append(all, Artifact{Name: fmt.Sprint(i), Object: strings.Repeat("k", 100)})
	}
	if err := Write(f, all); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(f); err != nil || len(got) < 100 || !reflect.DeepEqual(got, all[:len(got)]) {
		t.Fatalf("got %d, %v", len(got), err)
	}
}

// A list of very many artifacts is an error: the program may have been taken over.
func TestListOfNothing(t *testing.T) {
	f := newFile(t)
	for n, text := range map[int]string{most: "[{}" + strings.Repeat(",{}", most-1) + "]", 0: "[{}" + strings.Repeat(",{}", most) + "]"} {
		page := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
		page = binary.BigEndian.AppendUint32(page, crc32.ChecksumIEEE([]byte(text)))
		if _, err := f.WriteAt(append(page, text...), 0); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(f); len(got) != n || (err == nil) != (n > 0) {
			t.Errorf("got %d, %v", len(got), err)
		}
	}
}

// A reader gets no mixture of two lists.
func TestReadWhileWriting(t *testing.T) {
	f := newFile(t)
	var writing sync.WaitGroup
	defer writing.Wait()
	done := make(chan struct{})
	defer close(done)
	writing.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-done:
				return
			default:
			}
			if err := Write(f, []Artifact{{Moved: i, Used: i, Name: strings.Repeat("n", int(i%999))}}); err != nil {
				t.Error(err)
			}
		}
	})
	for range 2000 {
		got, err := read(f)
		if err != nil {
			continue // torn, and seen to be
		}
		if len(got) > 0 && (got[0].Moved != got[0].Used || int64(len(got[0].Name)) != got[0].Moved%999) {
			t.Fatalf("a mixture: %+v", got[0])
		}
	}
}

// The program cannot have the shim read without end, or fail in another way than by an error.
func TestHostileWriter(t *testing.T) {
	f := newFile(t)
	if err := f.Truncate(0); err == nil {
		t.Error("the file was cut")
	}
	if _, err := f.WriteAt([]byte("x"), size); err == nil {
		t.Error("the file has grown")
	}
	for _, text := range []string{"\xff\xff\xff\xff", "\x00\x00\x00\x02\x00\x00\x00\x00{}", "\x00\x00\x00\x01"} {
		if _, err := f.WriteAt([]byte(text), 0); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(f); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

// What was done last is written before Publish has stopped.
func TestPublishLast(t *testing.T) {
	f, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var moved atomic.Int64
	looked := make(chan struct{}, 2)
	stop := Publish(f, func() []Artifact {
		defer func() { looked <- struct{}{} }()
		return []Artifact{{Name: "a", Moved: moved.Load()}}
	})
	<-looked
	moved.Store(7)
	stop()
	if got, err := Read(f); err != nil || len(got) != 1 || got[0].Moved != 7 {
		t.Errorf("got %+v, %v", got, err)
	}
}
