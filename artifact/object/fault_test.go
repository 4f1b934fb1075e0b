package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// refuse answers with an error as S3 has it.
func refuse(status int, code string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>m</Message></Error>`, code)
	}
}

// hijacked takes the connection.
func hijacked(w http.ResponseWriter) *net.TCPConn {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return conn.(*net.TCPConn)
}

// partly sends the head of an answer and some of its bytes, and then does the rest.
func (f *fake) partly(rest func(*net.TCPConn)) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		var first, last int64
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
		conn := hijacked(w)
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 206 Partial Content\r\nETag: \"%s\"\r\nContent-Length: %d\r\nContent-Range: bytes %d-%d/%d\r\n\r\n",
			f.info.ETag, last+1-first, first, last, f.info.Size)
		_, _ = conn.Write(f.content[first : first+rand.Int64N(last+1-first)])
		rest(conn)
	}
}

// hang waits until the other side gives up.
func hang(conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) }

// reset ends a connection abruptly.
func reset(conn *net.TCPConn) { _ = conn.SetLinger(0) }

// answer changes a header of the usual answer.
func (f *fake) answer(name, value string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		f.serve(&changed{ResponseWriter: w, name: name, value: value}, r)
	}
}

type changed struct {
	http.ResponseWriter
	name, value string
}

func (c *changed) WriteHeader(status int) {
	c.Header()[c.name] = []string{c.value}
	c.ResponseWriter.WriteHeader(status)
}

// Whatever a store does, no read returns a wrong byte, none hangs, and nothing is left behind.
func TestFaults(t *testing.T) {
	f := newFake(t, 24*BlockSize+1000)
	passing := []func(http.ResponseWriter, *http.Request){
		refuse(500, "InternalError"), refuse(503, "SlowDown"), refuse(503, "ServiceUnavailable"), refuse(400, "RequestTimeout"), refuse(429, "Throttling"),
		func(w http.ResponseWriter, _ *http.Request) { hijacked(w).Close() },
		func(w http.ResponseWriter, _ *http.Request) { c := hijacked(w); reset(c); c.Close() },
		func(w http.ResponseWriter, _ *http.Request) { c := hijacked(w); hang(c); c.Close() },
		f.partly(func(*net.TCPConn) {}), f.partly(reset), f.partly(hang),
	}
	final := []func(http.ResponseWriter, *http.Request){
		refuse(403, "AccessDenied"), refuse(404, "NoSuchKey"), refuse(412, "PreconditionFailed"),
		f.answer("Etag", `"00000000000000000000000000000000"`), f.answer("Content-Range", "bytes 1-2/3"),
		func(w http.ResponseWriter, r *http.Request) { r.Header.Del("Range"); f.serve(w, r) }, // the whole
	}
	schedules := 1000
	if testing.Short() {
		schedules = 100
	}
	queue := make(chan int)
	var all sync.WaitGroup
	var decisions sync.Map // what is done with a request, by schedule
	f.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		do, ok := decisions.Load(r.Header.Get("Test-Schedule"))
		return ok && do.(func(http.ResponseWriter, *http.Request) bool)(w, r)
	}
	for range 8 {
		all.Go(func() {
			for n := range queue {
				one(t, f, n, passing, final, &decisions)
			}
		})
	}
	for n := range schedules {
		queue <- n
	}
	close(queue)
	all.Wait()
}

// scheduled tells the store by which schedule it treats a request.
type scheduled struct {
	http.RoundTripper
	name string
}

func (s scheduled) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Test-Schedule", s.name)
	return s.RoundTripper.RoundTrip(r)
}

func one(t *testing.T, f *fake, n int, passing, final []func(http.ResponseWriter, *http.Request), decisions *sync.Map) {
	random := rand.New(rand.NewPCG(uint64(n), 1))
	often, finally := random.Float64()*0.6, 0.0
	if n%4 == 0 {
		finally = 0.05
	}
	var lock sync.Mutex
	decisions.Store(strconv.Itoa(n), func(w http.ResponseWriter, r *http.Request) bool {
		lock.Lock()
		p, q := random.Float64(), random.IntN(1000)
		lock.Unlock()
		switch {
		case p < finally:
			final[q%len(final)](w, r)
		case p < often:
			passing[q%len(passing)](w, r)
		default:
			return false
		}
		return true
	})
	defer decisions.Delete(strconv.Itoa(n))
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: Parallel}
	defer transport.CloseIdleConnections()
	client, err := minio.NewCore(f.bucket.Client.EndpointURL().Host, &minio.Options{
		Creds: credentials.NewStaticV4("a", "s", ""), Region: "r", MaxRetries: 1, Transport: scheduled{transport, strconv.Itoa(n)},
	})
	if err != nil {
		t.Error(err)
		return
	}
	c, err := NewCache(int64(16+random.IntN(16)) * BlockSize)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	c.patience = patience{stall: 30 * time.Millisecond, attempts: 4, first: time.Millisecond, longest: 8 * time.Millisecond, failureLasts: time.Millisecond}
	o := c.Open(Bucket{Client: client, Name: "bucket"}, f.info)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var readers sync.WaitGroup
	for i := range uint64(4) {
		random := rand.New(rand.NewPCG(uint64(n), 2+i))
		readers.Go(func() {
			off := int64(0)
			for range 30 {
				if i%2 == 1 {
					off = random.Int64N(f.info.Size)
				}
				p := make([]byte, 1+random.IntN(BlockSize*3/2))
				reading := ctx
				if random.IntN(10) == 0 { // interrupted
					var end context.CancelFunc
					reading, end = context.WithTimeout(ctx, time.Duration(random.IntN(5))*time.Millisecond)
					defer end()
				}
				m, err := o.ReadAt(reading, p, off)
				if !bytes.Equal(p[:m], f.content[off:min(off+int64(m), f.info.Size)]) {
					t.Errorf("schedule %d: wrong bytes at %d", n, off)
				}
				if err == nil && m < len(p) || err == io.EOF && off+int64(m) != f.info.Size {
					t.Errorf("schedule %d: %d of %d bytes at %d: %v", n, m, len(p), off, err)
				}
				if off += int64(m); off >= f.info.Size {
					off = 0
				}
			}
		})
	}
	readers.Wait()
	if ctx.Err() != nil {
		t.Errorf("schedule %d: reads hang", n)
	}
	f.end(t, o)
}

// memoryStore is a store without a network, for tests whose time is not real.
type memoryStore func(*http.Request) (*http.Response, error)

func (m memoryStore) RoundTrip(r *http.Request) (*http.Response, error) { return m(r) }

func (m memoryStore) open(t *testing.T, info Info) *Object {
	t.Helper()
	client, err := minio.NewCore("store.test", &minio.Options{Creds: credentials.NewStaticV4("a", "s", ""), Region: "r", MaxRetries: 1, Transport: m})
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCache(0)
	if err != nil {
		t.Fatal(err)
	}
	return c.Open(Bucket{Client: client, Name: "bucket"}, info)
}

// whole answers with an object of one block.
func whole(r *http.Request, body io.ReadCloser, n int64) *http.Response {
	return &http.Response{StatusCode: 206, Request: r, Body: body, ContentLength: n, Header: http.Header{
		"Etag": {`"e"`}, "Last-Modified": {"Mon, 02 Jan 2006 15:04:05 GMT"}, "Content-Length": {fmt.Sprint(n)}, "Content-Range": {fmt.Sprintf("bytes %d-9/10", 10-n)},
	}}
}

func failed(r *http.Request, status int, code string) *http.Response {
	return &http.Response{StatusCode: status, Request: r, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("<Error><Code>" + code + "</Code></Error>"))}
}

// A store that sends nothing is given up after a while without progress, not after a while.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests := 0
		o := memoryStore(func(r *http.Request) (*http.Response, error) {
			requests++
			body, w := io.Pipe()
			context.AfterFunc(r.Context(), func() { w.CloseWithError(r.Context().Err()) })
			switch requests {
			case 1: // sends slowly and stops
				go func() {
					for _, c := range "0123" {
						time.Sleep(usual.stall * 3 / 4)
						_, _ = w.Write([]byte(string(c)))
					}
				}()
				return whole(r, body, 10), nil
			case 2: // does not answer
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return whole(r, io.NopCloser(strings.NewReader("456789")), 6), nil
		}).open(t, Info{Key: "k", Size: 10, ETag: "e"})
		defer o.Close()
		begin := time.Now()
		p := make([]byte, 10)
		if _, err := o.ReadAt(t.Context(), p, 0); err != nil || string(p) != "0123456789" {
			t.Errorf("%q: %v", p, err)
		}
		if took, least := time.Since(begin), 3*usual.stall+2*usual.stall; took < least || took > least+time.Second {
			t.Errorf("took %v", took)
		}
		if s := o.Stats(); s.Requests != 3 || s.Retries != 2 {
			t.Errorf("%+v", s)
		}
	})
}

// What passes is tried again with longer and longer pauses, what is final is not.
func TestRetries(t *testing.T) {
	for _, c := range []struct {
		status    int
		code      string
		transient bool
	}{
		{500, "InternalError", true}, {503, "SlowDown", true}, {503, "", true}, {429, "Throttling", true}, {400, "RequestTimeout", true},
		{403, "AccessDenied", false}, {404, "NoSuchKey", false}, {412, "PreconditionFailed", false}, {400, "ExpiredToken", false}, {501, "NotImplemented", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var times []time.Duration
			begin := time.Now()
			o := memoryStore(func(r *http.Request) (*http.Response, error) {
				times = append(times, time.Since(begin))
				return failed(r, c.status, c.code), nil
			}).open(t, Info{Key: "k", Size: 10, ETag: "e"})
			defer o.Close()
			_, err := o.ReadAt(t.Context(), make([]byte, 1), 0)
			var named *Error
			if !errors.As(err, &named) || named.Key != "k" || named.Bucket != "bucket" || c.code != "" && named.Code() != c.code {
				t.Errorf("%d %s: %v", c.status, c.code, err)
			}
			if errors.Is(err, ErrReplaced) != (c.status == 412) {
				t.Errorf("%d %s: %v", c.status, c.code, err)
			}
			want := 1
			if c.transient {
				want = usual.attempts
			}
			if len(times) != want {
				t.Errorf("%d %s: %d requests", c.status, c.code, len(times))
			}
			if last := times[len(times)-1]; c.transient && (last < 5*time.Second || last > 15*time.Second) {
				t.Errorf("%d %s: given up after %v", c.status, c.code, last)
			}
			if _, err := o.ReadAt(t.Context(), make([]byte, 1), 0); err == nil || len(times) != want {
				t.Errorf("%d %s: a read just after it: %v, %d requests", c.status, c.code, err, len(times))
			}
			time.Sleep(2 * usual.failureLasts)
			_, _ = o.ReadAt(t.Context(), make([]byte, 1), 0)
			if again := len(times) > want; again != c.transient {
				t.Errorf("%d %s: %d requests after a while", c.status, c.code, len(times))
			}
		})
	}
}

func TestPause(t *testing.T) {
	for attempt, most := range map[int]time.Duration{1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 5: 1600 * time.Millisecond, 7: 5 * time.Second, 60: 5 * time.Second} {
		if got := usual.pause(attempt, 0); got != most {
			t.Errorf("attempt %d: %v", attempt, got)
		}
		if got := usual.pause(attempt, 1); got != most/2 {
			t.Errorf("attempt %d: %v", attempt, got)
		}
	}
}

// A context that ends ends the wait at once, and what arrives later is kept.
func TestInterrupted(t *testing.T) {
	f := newFake(t, 2*BlockSize)
	gate := make(chan struct{})
	f.fault = func(int, http.ResponseWriter, *http.Request) bool { <-gate; return false }
	o := f.open(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := o.ReadAt(ctx, make([]byte, 1), BlockSize); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(gate)
	f.check(t, o, BlockSize, 100)
	if asked := f.asked(); len(asked) != 1 {
		t.Errorf("asked for %v", asked)
	}
}
