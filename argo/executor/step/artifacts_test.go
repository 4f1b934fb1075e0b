package step

import (
	"archive/zip"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// web is a server that keeps what is put to it.
type web struct {
	*httptest.Server
	lock sync.Mutex
	put  map[string]string
	most int // the most requests at a time
	now  int
}

func newWeb(t *testing.T) *web {
	w := &web{put: map[string]string{}}
	w.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		w.lock.Lock()
		w.now++
		w.most = max(w.most, w.now)
		w.lock.Unlock()
		body, _ := io.ReadAll(r.Body)
		w.lock.Lock()
		defer w.lock.Unlock()
		w.put[r.URL.Path] = string(body)
		w.now--
	}))
	t.Cleanup(w.Close)
	return w
}

// artifactsAt returns a template with artifacts at paths, with an archive strategy, that are kept by a web server.
func artifactsAt(server, strategy string, paths ...string) string {
	var list []string
	for i, at := range paths {
		list = append(list, fmt.Sprintf(`{"name":"a%d","path":%q,"archive":{%q:{}},"http":{"url":"%s/%d"}}`, i, at, strategy, server, i))
	}
	return `{"outputs":{"artifacts":[` + strings.Join(list, ",") + `]},"container":{"volumeMounts":[{"name":"v","mountPath":"/v"}]}}`
}

// Outputs are saved at once, at most four of them, and nothing is left of their copies.
func TestSaveOutputs(t *testing.T) {
	server := newWeb(t)
	var paths []string
	for i := range 20 {
		paths = append(paths, fmt.Sprintf("/v/%d", i))
	}
	s, _ := newStep(t, artifactsAt(server.URL, "zip", paths...))
	for _, at := range paths[1:] {
		if err := os.WriteFile(s.Root+mainFiles+at, []byte(at), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.saveOutputs(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.failed(); err == nil || !strings.HasSuffix(err.Error(), "/v/0: no such file or directory; ") {
		t.Errorf("got %v", err)
	}
	if len(server.put) != len(paths)-1 || server.most > atOnce {
		t.Errorf("%d files are put, %d at a time", len(server.put), server.most)
	}
	if text := string(s.template.Outputs["artifacts"]); strings.Contains(text, `"a0"`) || strings.Index(text, `"a3"`) > strings.Index(text, `"a12"`) {
		t.Errorf("reported %s", text)
	}
	if left, err := os.ReadDir(s.Root + scratchDir); len(left) > 0 || err != nil {
		t.Errorf("left are %v, %v", left, err)
	}
}

// endless is where a file without end ends, for the sake of the disk.
const endless = 256 << 20

// A file to which another container writes on is saved as long as it was.
func TestGrowingOutput(t *testing.T) {
	for _, strategy := range []string{"none", "zip"} {
		server := newWeb(t)
		s, _ := newStep(t, artifactsAt(server.URL, strategy, "/v/log"))
		f, err := os.Create(s.Root + mainFiles + "/v/log")
		if err != nil {
			t.Fatal(err)
		}
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			defer f.Close()
			for n := 0; n < endless; {
				select {
				case <-stop:
					return
				default:
				}
				more, _ := f.Write(make([]byte, 1<<20))
				n += more
			}
		}()
		err = s.saveOutputs(t.Context())
		close(stop)
		<-stopped
		if err != nil || s.failed() != nil || len(server.put) != 1 {
			t.Errorf("%s: %v, %v, %d files are put", strategy, err, s.failed(), len(server.put))
		}
		for _, text := range server.put {
			if len(contents(t, text)) >= endless {
				t.Errorf("%s: the file was followed to its end", strategy)
			}
		}
		os.Remove(f.Name())
	}
}

// Another container exchanges what is on its volume with links to this container's files, while they are saved.
func TestOutputsInMotion(t *testing.T) {
	for _, strategy := range []string{"none", "zip", "tar"} {
		server := newWeb(t)
		s, _ := newStep(t, artifactsAt(server.URL, strategy, "/v/d/file", "/v/file", "/v/d", "/v/d/file"))
		volume := s.Root + mainFiles + "/v"
		if err := errors.Join(os.Mkdir(volume+"/d", 0o755), os.WriteFile(volume+"/d/file", nil, 0o644), os.WriteFile(volume+"/file", nil, 0o644),
			os.MkdirAll(s.Root+"/secret", 0o755), os.WriteFile(s.Root+"/secret/file", []byte("secret!"), 0o644),
			os.Symlink("../../secret", volume+"/link"), os.Symlink(s.Root+"/secret/file", volume+"/link.file"), unix.Mkfifo(volume+"/fifo", 0o666)); err != nil {
			t.Fatal(err)
		}
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				with := [][2]string{{"link", "d"}, {"link.file", "file"}, {"fifo", "file"}, {"fifo", "d"}}[i%4]
				_ = unix.Renameat2(unix.AT_FDCWD, path.Join(volume, with[0]), unix.AT_FDCWD, path.Join(volume, with[1]), unix.RENAME_EXCHANGE)
			}
		}()
		for range 100 {
			_ = s.saveOutputs(t.Context()) // whatever comes of it
			s.errs = nil
		}
		close(stop)
		<-stopped
		for name, text := range server.put {
			if strings.Contains(contents(t, text), "secret!") {
				t.Errorf("%s: the secret is put as %s", strategy, name)
			}
		}
	}
}

// contents returns the contents of a file or of the files in an archive.
func contents(t *testing.T, text string) string {
	t.Helper()
	if archive, err := zip.NewReader(strings.NewReader(text), int64(len(text))); err == nil {
		var all string
		for _, f := range archive.File {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			all += string(content)
		}
		return all
	}
	compressed, err := gzip.NewReader(strings.NewReader(text))
	if err != nil {
		return text
	}
	content, err := io.ReadAll(compressed) // a tarball has the files as they are
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
