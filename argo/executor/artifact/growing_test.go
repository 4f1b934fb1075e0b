package artifact

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

// noise writes n bytes that are the same each time, in pieces of any size.
func noise(w io.Writer, n int64) error {
	const piece = 100_003
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(rand.NewChaCha8([32]byte{}), n), make([]byte, piece))
	return err
}

func newFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "a.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// pipe is a save of a file that is still written, and an S3 server that reports when requests arrive.
type pipe struct {
	*fakeS3
	store    *s3
	arrivals map[string]chan struct{} // by what is in the request: closed when the first one has arrived
}

// newPipe returns one for the requests that contain the texts. answer may be nil.
func newPipe(t *testing.T, answer func(http.ResponseWriter, *http.Request) bool, texts ...string) *pipe {
	p := &pipe{fakeS3: newFake(t, 0, (*httptest.Server).Start), arrivals: map[string]chan struct{}{}}
	for _, text := range texts {
		p.arrivals[text] = make(chan struct{})
	}
	p.answer = func(w http.ResponseWriter, r *http.Request) bool {
		for text, arrival := range p.arrivals {
			if strings.Contains(r.Method+" "+r.URL.RawQuery, text) {
				select {
				case <-arrival:
				default:
					close(arrival)
				}
			}
		}
		return answer != nil && answer(w, r)
	}
	p.store = p.open(t, nil)
	return p
}

// await waits for the arrival of a request.
func (p *pipe) await(text string) error {
	select {
	case <-p.arrivals[text]:
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("no request with %q has arrived", text)
	}
}

// likeMinio compares the requests with those of minio-go for a file that is there: the sums of the parts make the ETag.
func (p *pipe) likeMinio(t *testing.T, f *os.File, ours []string) {
	t.Helper()
	client, err := p.store.connect()
	if err != nil {
		t.Fatal(err)
	}
	p.asked()
	if _, err := client.FPutObject(t.Context(), "bucket", "k", f.Name(), minio.PutObjectOptions{SendContentMd5: true}); err != nil {
		t.Fatal(err)
	}
	if theirs := p.asked(); !reflect.DeepEqual(ours, theirs) {
		t.Errorf("asked\n%s\nminio-go asks\n%s", strings.Join(ours, "\n"), strings.Join(theirs, "\n"))
	}
}

// A file that is written meanwhile is put as one that is there, and not kept in memory.
func TestSaveWritten(t *testing.T) {
	for _, size := range []int64{0, 1, largestPut - 1, largestPut, largestPut + 1, 2 * largestPut, 40 << 20} {
		p, f := newPipe(t, nil), newFile(t)
		var err error
		n := allocated(func() { err = SaveWritten(t.Context(), p.store, f, func(w io.Writer) error { return noise(w, size) }) })
		if err != nil || n > 4<<20+uint64(size)/4 {
			t.Errorf("%d bytes: %v, with %d bytes of memory", size, err, n)
		}
		p.likeMinio(t, f, p.asked())
	}
}

// The first part is at the store before the file is whole.
func TestSaveBegins(t *testing.T) {
	p, f := newPipe(t, nil, "partNumber=1", "partNumber=2"), newFile(t)
	err := SaveWritten(t.Context(), p.store, f, func(w io.Writer) error {
		return errors.Join(noise(w, largestPut+1), p.await("partNumber=1"), noise(w, largestPut), p.await("partNumber=2"), noise(w, 1))
	})
	if err != nil {
		t.Error(err)
	}
	p.likeMinio(t, f, p.asked())
}

// Of a file whose writer fails, the store has nothing, and the error is the writer's. Also while a part is under way.
func TestWriterFails(t *testing.T) {
	failure := errors.New("no space left on device")
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"between parts": nil,
		"during a part": func(_ http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("partNumber") == "1" {
				<-r.Context().Done()
			}
			return false
		},
	} {
		p := newPipe(t, answer, "partNumber=1")
		err := SaveWritten(t.Context(), p.store, newFile(t), func(w io.Writer) error {
			if err := errors.Join(noise(w, largestPut+1), p.await("partNumber=1")); err != nil {
				return err
			}
			return failure
		})
		if err != failure {
			t.Errorf("%s: got %v", name, err)
		}
		if asks := p.asked(); !strings.HasPrefix(asks[len(asks)-1], "DELETE /bucket/k ") {
			t.Errorf("%s: asked\n%s", name, strings.Join(asks, "\n"))
		}
	}
	p := newPipe(t, nil)
	if err := SaveWritten(t.Context(), p.store, newFile(t), func(io.Writer) error { return failure }); err != failure || p.asked() != nil {
		t.Errorf("small file: got %v", err)
	}
}

// A store that refuses a part for good stops the writer.
func TestRefusedWhileWritten(t *testing.T) {
	p := newPipe(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Has("partNumber") {
			w.WriteHeader(http.StatusForbidden)
		}
		return r.URL.Query().Has("partNumber")
	}, "DELETE")
	var wrote error
	err := SaveWritten(t.Context(), p.store, newFile(t), func(w io.Writer) error {
		if err := errors.Join(noise(w, largestPut+1), p.await("DELETE")); err != nil {
			return err
		}
		for began := time.Now(); wrote == nil && time.Since(began) < time.Minute; {
			_, wrote = w.Write([]byte{0})
		}
		return wrote
	})
	if wrote == nil || err == nil || err.Error() != "failed to put file: Access Denied." {
		t.Errorf("got %v; the writer got %v", err, wrote)
	}
}

// The second attempt is for the whole file.
func TestAwayWhileWritten(t *testing.T) {
	p := newPipe(t, nil, "DELETE")
	usual := p.answer
	p.answer = func(w http.ResponseWriter, r *http.Request) bool {
		select {
		case <-p.arrivals["DELETE"]:
			return false
		default:
		}
		usual(w, r)
		if !r.URL.Query().Has("partNumber") {
			return false
		}
		w.WriteHeader(http.StatusBadRequest) // minio-go does not try again by itself
		fmt.Fprint(w, `<Error><Code>ServiceUnavailable</Code></Error>`)
		return true
	}
	f, before := newFile(t), 0
	err := SaveWritten(t.Context(), p.store, f, func(w io.Writer) error {
		err := errors.Join(noise(w, largestPut+1), p.await("DELETE"), noise(w, largestPut))
		before = len(p.asked())
		return err
	})
	if err != nil || before != 3 {
		t.Errorf("got %v, %d requests before the file is whole", err, before)
	}
	p.likeMinio(t, f, p.asked())
}

// A file that becomes too large for parts of the usual size is put again, when it is whole.
func TestTooManyParts(t *testing.T) {
	usual := maxParts
	defer func() { maxParts = usual }()
	maxParts = 1
	p, f := newPipe(t, nil, "DELETE"), newFile(t)
	err := SaveWritten(t.Context(), p.store, f, func(w io.Writer) error {
		return errors.Join(noise(w, largestPut+1), p.await("DELETE"), noise(w, 1))
	})
	if err != nil {
		t.Error(err)
	}
	asks := p.asked()
	p.likeMinio(t, f, asks[min(3, len(asks)):])
}
