package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/artifact/answer"
)

// endless writes a text again and again until the client has enough, or a GB. It adds up what the client took.
func endless(w io.Writer, text string, sent *atomic.Int64) {
	block := []byte(strings.Repeat(text, 1+(64<<10)/len(text)))
	for range 1 << 30 / len(block) {
		n, err := w.Write(block)
		sent.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// A store whose answers have no end is left, whatever is asked and whether or not it refuses. minio-go would read all of
// the answer, and keep it.
func TestEndlessAnswers(t *testing.T) {
	load := func(s *s3, ctx context.Context) error { return s.Load(ctx, openRoot(t), "a") }
	save := func(size int64) func(*s3, context.Context) error {
		return func(s *s3, ctx context.Context) error { return s.Save(ctx, sparse(t, size)) }
	}
	missing := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusNotFound)
		}
		return r.Method == http.MethodHead
	}
	isList := func(r *http.Request) bool { return r.URL.Query().Has("list-type") }
	for name, c := range map[string]struct {
		do     func(*s3, context.Context) error
		to     func(*http.Request) bool // the request that is answered without an end
		status int
		begin  string
		repeat string
		most   int64 // bytes that the client takes
	}{
		"list":            {load, isList, 200, `<ListBucketResult><IsTruncated>false</IsTruncated>`, `<Contents><Key>k/` + strings.Repeat("x", 900) + `</Key></Contents>`, answer.MaxBytes},
		"list of nothing": {load, isList, 200, `<ListBucketResult>`, `<Contents/>`, answer.MaxTags * 11},
		"list of a name":  {load, isList, 200, `<ListBucketResult><Name>`, "x", answer.MaxBytes},
		"refused list":    {load, isList, 403, `<Error><Message>`, "x", answer.MaxBytes},
		"refused object":  {load, func(r *http.Request) bool { return r.Method == http.MethodGet }, 403, `<Error><Message>`, "x", answer.MaxBytes},
		"put":             {save(1), func(*http.Request) bool { return true }, 200, "", "x", answer.MaxBytes},
		"refused put":     {save(1), func(*http.Request) bool { return true }, 403, "", "x", answer.MaxBytes},
		"begun upload":    {save(20 << 20), func(r *http.Request) bool { return r.URL.Query().Has("uploads") }, 200, `<InitiateMultipartUploadResult><UploadId>`, "x", answer.MaxBytes},
		"part":            {save(20 << 20), func(r *http.Request) bool { return r.URL.Query().Get("partNumber") == "1" }, 200, "", "x", answer.MaxBytes},
		"ended upload":    {save(20 << 20), func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") }, 200, `<CompleteMultipartUploadResult>`, "x", answer.MaxBytes},
		"called off":      {save(20 << 20), func(r *http.Request) bool { return r.Method != http.MethodPost || !r.URL.Query().Has("uploads") }, 403, "", "x", 2 * answer.MaxBytes},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			fake := newFake(t, 1, (*httptest.Server).Start)
			fake.answer = func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case c.to(r) && r.Method != http.MethodHead:
					w.WriteHeader(c.status)
					fmt.Fprint(w, c.begin)
					endless(w, c.repeat, &sent)
				case name == "refused object":
					return false
				case !missing(w, r):
					return false
				}
				return true
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := c.do(fake.open(t, map[string]string{"ca": ""}), ctx)
			if ctx.Err() != nil || err == nil && name != "put" && name != "part" {
				t.Errorf("got %v", err)
			}
			const underway = 16 << 20 // in the buffers of both sockets
			if took := sent.Load(); took > c.most+underway {
				t.Errorf("%v; it took %d MiB", err, took>>20)
			}
		})
	}
}

func openRoot(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// A list of endlessly many pages, an object or an answer that never comes: the end of the container ends it.
func TestStoreThatNeverEnds(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"pages": func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusNotFound)
			} else {
				fmt.Fprintf(w, `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>%d</NextContinuationToken></ListBucketResult>`, time.Now().UnixNano())
			}
			return true
		},
		"object": func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet {
				w.Header().Set("Content-Length", "1000000")
				w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
				w.WriteHeader(200)
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
			return r.Method == http.MethodGet
		},
		"answer": func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFake(t, 1, (*httptest.Server).Start)
			fake.answer = answer
			at := executor.Location{HTTP: &executor.HTTP{URL: fake.URL}}
			byHTTP, err := Open(at, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, store := range []Store{fake.open(t, map[string]string{"ca": ""}), byHTTP} {
				if name == "pages" && store == byHTTP {
					continue
				}
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				began := time.Now()
				if err := store.Load(ctx, openRoot(t), "a"); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
			}
		})
	}
}

// A store that sends its clients elsewhere does not get keys or passwords sent there.
func TestRedirects(t *testing.T) {
	var asked []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, fmt.Sprint(r.Method, r.Header))
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer other.Close()
	elsewhere := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	for _, code := range []int{301, 302, 303, 307, 308} {
		fake := newFake(t, 1, (*httptest.Server).Start)
		fake.Config.ErrorLog = log.New(io.Discard, "", 0)
		fake.answer = func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", elsewhere+"/k")
			w.WriteHeader(code)
			return true
		}
		s3 := fake.open(t, map[string]string{"ca": ""})
		if err := s3.Load(t.Context(), openRoot(t), "a"); err == nil {
			t.Errorf("%d: S3 loaded an object", code)
		}
		if err := s3.Save(t.Context(), sparse(t, 1)); err == nil {
			t.Errorf("%d: S3 saved an object", code)
		}
		if len(asked) > 0 {
			t.Fatalf("%d: another server than that of S3 was asked %q", code, asked)
		}
		secret := &executor.Secret{Name: "s", Key: "hunter2"}
		web, err := Open(executor.Location{HTTP: &executor.HTTP{URL: fake.URL, Auth: &executor.HTTPAuth{BasicAuth: executor.BasicAuth{UsernameSecret: secret, PasswordSecret: secret}}}},
			func(_, key string) (string, error) { return key, nil }, nil)
		if err != nil {
			t.Fatal(err)
		}
		// As with the real executor the object comes from elsewhere.
		if err := errors.Join(web.Load(t.Context(), openRoot(t), "a"), web.Save(t.Context(), sparse(t, 1))); err != nil {
			t.Error(err)
		}
		if len(asked) != 2 || strings.Contains(strings.Join(asked, ""), "Authorization") {
			t.Errorf("%d: another server was asked %q", code, asked)
		}
		asked = nil
	}
	// A loop has an end.
	loop := newFake(t, 1, (*httptest.Server).Start)
	loop.answer = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "/again", http.StatusTemporaryRedirect)
		return true
	}
	web, _ := Open(executor.Location{HTTP: &executor.HTTP{URL: loop.URL}}, nil, nil)
	if err := web.Load(t.Context(), openRoot(t), "a"); err == nil || !strings.Contains(err.Error(), "stopped after 10 redirects") {
		t.Errorf("got %v", err)
	}
}

// Headers, and answers before the answer, have an end.
func TestEnormousHeaders(t *testing.T) {
	for name, line := range map[string]string{
		"headers": "X-Header: " + strings.Repeat("x", 1000) + "\r\n",
		"hints":   "\r\nHTTP/1.1 103 Early Hints\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			fake := newFake(t, 1, (*httptest.Server).Start)
			fake.answer = func(w http.ResponseWriter, r *http.Request) bool {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					return true
				}
				defer conn.Close()
				fmt.Fprint(conn, map[string]string{"headers": "HTTP/1.1 200 OK\r\n", "hints": "HTTP/1.1 103 Early Hints\r\n"}[name])
				endless(conn, line, &sent)
				return true
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			web, _ := Open(executor.Location{HTTP: &executor.HTTP{URL: fake.URL}}, nil, nil)
			if err := web.Load(ctx, openRoot(t), "a"); err == nil || ctx.Err() != nil {
				t.Errorf("got %v after %d bytes", err, sent.Load())
			}
			if n := sent.Load(); n > 32<<20 {
				t.Errorf("it took %d bytes", n)
			}
		})
	}
}
