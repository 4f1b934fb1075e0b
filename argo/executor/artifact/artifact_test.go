package artifact

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
)

// fakeS3 answers as an S3 server does, and keeps what it is asked. Each of its objects has size zeros.
type fakeS3 struct {
	*httptest.Server
	size   int64
	answer func(w http.ResponseWriter, r *http.Request) bool // in the place of the usual, if it is not nil

	lock sync.Mutex
	asks []string
}

func newFake(t *testing.T, size int64, start func(*httptest.Server)) *fakeS3 {
	f := &fakeS3{size: size}
	f.Server = httptest.NewUnstartedServer(f)
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	start(f.Server)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sum := md5.New()
	n, _ := io.Copy(sum, r.Body)
	query := r.URL.Query()
	ask := fmt.Sprintf("%s %s part %s uploads %v, %d bytes of %s, %s, %s, token %q", r.Method, r.URL.Path, query.Get("partNumber"), query.Has("uploads"),
		n, r.Header.Get("X-Amz-Decoded-Content-Length"), r.Header.Get("Content-Md5"), r.Header.Get("Content-Type"), r.Header.Get("X-Amz-Security-Token"))
	f.lock.Lock()
	f.asks = append(f.asks, ask)
	f.lock.Unlock()
	if f.answer != nil && f.answer(w, r) {
		return
	}
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum.Sum(nil))+`"`)
	switch {
	case r.Method == http.MethodPost && query.Has("uploads"):
		fmt.Fprint(w, `<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>`)
	case r.Method == http.MethodPost:
		fmt.Fprint(w, `<CompleteMultipartUploadResult><Bucket>bucket</Bucket><Key>k</Key><ETag>1</ETag></CompleteMultipartUploadResult>`)
	case r.Method == http.MethodGet, r.Method == http.MethodHead:
		w.Header().Set("Content-Length", fmt.Sprint(f.size))
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		if r.Method == http.MethodGet {
			_, _ = io.CopyN(w, zeros{}, f.size)
		}
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// asked returns what has been asked since the last call.
func (f *fakeS3) asked() []string {
	f.lock.Lock()
	defer f.lock.Unlock()
	asks := f.asks
	f.asks = nil
	return asks
}

// open returns the store of key k.
func (f *fakeS3) open(t *testing.T, secrets map[string]string) *s3 {
	t.Helper()
	_, plain := strings.CutPrefix(f.URL, "http://")
	at := executor.S3{
		Endpoint: f.Listener.Addr().String(), Bucket: "bucket", Region: "us-east-1", Insecure: &plain, Key: "k",
		AccessKeySecret: &executor.Secret{Name: "s", Key: "access"}, SecretKeySecret: &executor.Secret{Name: "s", Key: "secret"},
		SessionTokenSecret: &executor.Secret{Name: "s", Key: "session"}, CASecret: &executor.Secret{Name: "s", Key: "ca"},
	}
	store, err := Open(executor.Location{S3: &at}, func(_, key string) (string, error) {
		if value, ok := secrets[key]; ok {
			return value, nil
		}
		return key, nil
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return store.(*s3)
}

// Neither an object nor a file is kept in memory, whatever its size is, and a file is put as minio-go puts it.
func TestStreams(t *testing.T) {
	const size = 100<<20 + 1
	fake := newFake(t, size, (*httptest.Server).Start)
	store := fake.open(t, nil)
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if n := allocated(func() { err = store.Load(t.Context(), root, "x.json") }); err != nil || n > size/4 {
		t.Errorf("load: %v, with %d bytes of memory", err, n)
	}
	f, err := root.Open("x.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, length := range []int64{size, largestPut + 1, largestPut, 1, 0} {
		if err := os.Truncate(f.Name(), length); err != nil {
			t.Fatal(err)
		}
		fake.asked()
		if n := allocated(func() { err = store.Save(t.Context(), f) }); err != nil || n > size/4 {
			t.Errorf("save %d bytes: %v, with %d bytes of memory", length, err, n)
		}
		ours := fake.asked()
		client, err := store.connect()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.FPutObject(t.Context(), "bucket", "k", f.Name(), minio.PutObjectOptions{SendContentMd5: true}); err != nil {
			t.Fatal(err)
		}
		if theirs := fake.asked(); !reflect.DeepEqual(ours, theirs) {
			t.Errorf("%d bytes: asked\n%s\nminio-go asks\n%s", length, strings.Join(ours, "\n"), strings.Join(theirs, "\n"))
		}
	}
}

// allocated returns how many bytes of memory the whole test program has allocated meanwhile.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Of an upload that fails, the store keeps no parts.
func TestSaveFails(t *testing.T) {
	fake := newFake(t, 0, (*httptest.Server).Start)
	fake.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("partNumber") != "2" {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	f := sparse(t, 40<<20)
	err := fake.open(t, nil).Save(t.Context(), f)
	if err == nil || err.Error() != "failed to put file: Access Denied." {
		t.Errorf("got %v", err)
	}
	asks := fake.asked()
	if last := asks[len(asks)-1]; !strings.HasPrefix(last, "DELETE /bucket/k ") {
		t.Errorf("the last request is %s", last)
	}
}

func sparse(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// A folder is put file by file, and nothing that a link names. What is not a file is an error, not waited for.
func TestSaveFolder(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"d/e", "empty"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"x", "d/y.txt", "d/e/z"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"/etc", "/etc/passwd", "nowhere"} {
		if err := os.Symlink(target, filepath.Join(dir, "d", filepath.Base(target))); err != nil {
			t.Fatal(err)
		}
	}
	fake := newFake(t, 0, (*httptest.Server).Start)
	store := fake.open(t, nil)
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 { // the second time, the folder has been read
		if err := store.Save(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, ask := range fake.asked() {
			found[strings.Fields(ask)[1]] = true
		}
		if want := map[string]bool{"/bucket/k/x": true, "/bucket/k/d/y.txt": true, "/bucket/k/d/e/z": true}; !reflect.DeepEqual(found, want) {
			t.Errorf("put %v, want %v", found, want)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "d", "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := store.Save(t.Context(), f); err == nil || !strings.Contains(err.Error(), "d/fifo: it is not a regular file") {
		t.Errorf("got %v", err)
	}
}

// Only the authority in the secret is trusted, and the session's token is sent.
func TestCredentials(t *testing.T) {
	fake := newFake(t, 1, (*httptest.Server).StartTLS)
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: fake.Certificate().Raw}))
	f := sparse(t, 1)
	if err := fake.open(t, map[string]string{"ca": certificate}).Save(t.Context(), f); err != nil {
		t.Error(err)
	}
	if asks := fake.asked(); len(asks) != 1 || !strings.Contains(asks[0], `token "session"`) {
		t.Errorf("asked %v", asks)
	}
	err := fake.open(t, map[string]string{"ca": ""}).Save(t.Context(), f)
	if err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") || len(fake.asked()) != 0 {
		t.Errorf("got %v", err)
	}
}

// A store that is away is asked five times, with upstream's pauses, and less if the context ends.
func TestRetry(t *testing.T) {
	away := fmt.Errorf("failed to put file: %w", minio.ErrorResponse{Code: "SlowDown", Message: "slow down"})
	refused := minio.ErrorResponse{Code: "AccessDenied", Message: "no"}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx   context.Context
		errs  []error // of the attempts, the last one for all further ones
		tries int
		want  string
	}{
		"good":        {nil, []error{nil}, 1, ""},
		"away":        {nil, []error{away}, 5, "timed out waiting for the condition: failed to put file: slow down"},
		"for a while": {nil, []error{away, away, io.ErrUnexpectedEOF, nil}, 4, ""},
		"refused":     {nil, []error{away, refused}, 2, "no"},
		"ended":       {ended, []error{away}, 1, "failed to put file: slow down"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := c.ctx
				if ctx == nil {
					ctx = t.Context()
				}
				began, tries := time.Now(), 0
				err := (&s3{log: slog.New(slog.DiscardHandler)}).retry(ctx, func() error {
					tries++
					return c.errs[min(tries, len(c.errs))-1]
				})
				if tries != c.tries || (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
					t.Errorf("after %d attempts, want %d: %v, want %q", tries, c.tries, err, c.want)
				}
				least := map[int]time.Duration{2: time.Second, 4: 5160 * time.Millisecond, 5: 9256 * time.Millisecond}[tries]
				if took := time.Since(began); took < least || took > least*3/2 {
					t.Errorf("it took %v, want %v and up to a half more", took, least)
				}
			})
		})
	}
}

// An error has the path that package os would have given it.
func TestWhole(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, err = root.Open("a")
	_, want := os.Open(root.Name() + "/a")
	if got := Whole(root, err); got.Error() != want.Error() {
		t.Errorf("got %v, want %v", got, want)
	}
	err = root.Rename("a", "b")
	want = os.Rename(root.Name()+"/a", root.Name()+"/b")
	if got := Whole(root, err); got.Error() != want.Error() {
		t.Errorf("got %v, want %v", got, want)
	}
}
