package step

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// packed returns a file with a tarball.
func packed(t testing.TB, headers ...tar.Header) *os.File {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	archive := tar.NewWriter(compressed)
	for _, h := range headers {
		if err := archive.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(archive, zeros{}, h.Size); err != nil {
			t.Fatal(err)
		}
	}
	archive.Close()
	compressed.Close()
	return holding(t, out.Bytes())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func holding(t testing.TB, content []byte) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return f
}

// folder returns a folder in another one, in which nothing else may appear.
func folder(t testing.TB) *os.Root {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "in")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func alone(t testing.TB, root *os.Root) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(root.Name()))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside the folder there are %v, %v", entries, err)
	}
}

// A neighbour on the volume plants something in the folder into which an archive is unpacked.
func TestUnpackOntoPlanted(t *testing.T) {
	file := packed(t, tar.Header{Name: "d/x", Typeflag: tar.TypeReg, Mode: 0o644, Size: 3})
	for name, plant := range map[string]func(dir string) error{
		"link outside":          func(dir string) error { return os.Symlink("../..", dir+"/d") },
		"absolute link outside": func(dir string) error { return os.Symlink(filepath.Dir(dir), dir+"/d") },
		"link to a file": func(dir string) error {
			return os.Symlink("../../x", mustDir(t, dir+"/d")+"/x")
		},
		"fifo":   func(dir string) error { return unix.Mkfifo(mustDir(t, dir+"/d")+"/x", 0o666) },
		"folder": func(dir string) error { return os.MkdirAll(dir+"/d/x", 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			into := folder(t)
			if err := plant(into.Name()); err != nil {
				t.Fatal(err)
			}
			if err := untar(t.Context(), file, into); err == nil {
				t.Error("it is unpacked")
			}
			alone(t, into)
		})
	}
}

func mustDir(t testing.TB, name string) string {
	t.Helper()
	if err := os.MkdirAll(name, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// Large and deep archives need little memory and end.
func TestUnpackLarge(t *testing.T) {
	const size = 64 << 20
	var deep []tar.Header
	for _, name := range []string{strings.Repeat("d/", 2000) + "x", strings.Repeat("d/", 100000) + "x"} {
		deep = append(deep, tar.Header{Name: name, Typeflag: tar.TypeReg, Format: tar.FormatPAX})
	}
	for name, c := range map[string]struct {
		file *os.File
		do   func(context.Context, *os.File, *os.Root) error
		want string
	}{
		"zeros":     {packed(t, tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: size}), untar, ""},
		"deep":      {packed(t, deep[0]), untar, ""},
		"deeper":    {packed(t, deep[1]), untar, "illegal file path"},
		"zip":       {zipOf(t, 100), unzip, ""},
		"long zip":  {zipOf(t, 300000), unzip, "list of files has more than"},
		"directory": {openDir(t), untar, "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			into := folder(t)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := c.do(t.Context(), c.file, into)
			runtime.ReadMemStats(&after)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %.200v, want %q", err, c.want)
			}
			if n := after.TotalAlloc - before.TotalAlloc; name != "long zip" && n > size/8 {
				t.Errorf("it took %d bytes of memory", n)
			}
			alone(t, into)
			if err := os.RemoveAll(into.Name()); err != nil {
				t.Error(err)
			}
		})
	}
}

func openDir(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// zipOf returns a zip file with n empty files.
func zipOf(t *testing.T, n int) *os.File {
	t.Helper()
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	for i := range n {
		if _, err := archive.CreateHeader(&zip.FileHeader{Name: fmt.Sprintf("%020d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return holding(t, out.Bytes())
}

// Unpacking ends when the container is to end.
func TestUnpackEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := untar(ctx, packed(t, tar.Header{Name: "x", Typeflag: tar.TypeReg}), folder(t)); err == nil {
		t.Error("it is unpacked")
	}
	if err := unzip(ctx, zipOf(t, 1), folder(t)); err == nil {
		t.Error("it is unpacked")
	}
}

// Whatever is in an archive, nothing is made beside the folder.
func FuzzUntar(f *testing.F) {
	f.Add("a/b", "../../x", byte(tar.TypeSymlink), "a/b/c")
	f.Add("a", "/", byte(tar.TypeLink), "a/../..")
	f.Add("..", ".", byte(tar.TypeSymlink), "/../x")
	f.Fuzz(func(t *testing.T, name, link string, kind byte, second string) {
		var out bytes.Buffer
		compressed := gzip.NewWriter(&out)
		archive := tar.NewWriter(compressed)
		for _, h := range []tar.Header{{Name: name, Linkname: link, Typeflag: kind}, {Name: second, Typeflag: tar.TypeReg}, {Name: name + "/" + second, Typeflag: tar.TypeReg}} {
			if archive.WriteHeader(&h) != nil {
				return
			}
		}
		archive.Close()
		compressed.Close()
		into := folder(t)
		_ = untar(t.Context(), holding(t, out.Bytes()), into)
		alone(t, into)
	})
}

// A neighbour exchanges a folder of the volume with a link that leads outside, all the time.
func TestInputInMotion(t *testing.T) {
	s, _ := newStep(t, `{"container":{"volumeMounts":[{"name":"v","mountPath":"/v"}]},"inputs":{"artifacts":[{"name":"a","path":"/v/d/x","raw":{"data":"x"},"mode":511}]}}`)
	outside, vol := s.Root+"/outside", s.Root+mainFiles+"/v"
	mustDir(t, outside)
	mustDir(t, vol+"/d")
	if err := os.Symlink("../../outside", vol+"/l"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_ = unix.Renameat2(unix.AT_FDCWD, vol+"/d", unix.AT_FDCWD, vol+"/l", unix.RENAME_EXCHANGE)
		}
	}()
	loaded := 0
	for range 2000 {
		if s.loadArtifacts(t.Context()) == nil {
			loaded++
		}
	}
	cancel()
	<-done
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 0 {
		t.Errorf("outside there are %v, %v", entries, err)
	}
	if loaded == 0 {
		t.Error("nothing was ever loaded, so nothing is tested")
	}
}
