package argo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestArchiveWhileLinksAreSwapped archives a directory while another process, as it
// were, exchanges what is in it with links that lead out. Whatever comes of it, it is
// not what lies outside.
func TestArchiveWhileLinksAreSwapped(t *testing.T) {
	outside := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(outside+"/d/file", "secret")
	write(outside+"/file", "secret")
	dir := t.TempDir()
	write(dir+"/out/d/file", "inside")
	write(dir+"/out/file", "inside")
	for name, target := range map[string]string{"/link-d": outside + "/d", "/link-file": outside + "/file", "/link-out": outside} {
		if err := os.Symlink(target, dir+name); err != nil {
			t.Fatal(err)
		}
	}
	root, err := openRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.close()
	out, err := root.sub("/out") // by descriptor: the path leads out at times
	if err != nil {
		t.Fatal(err)
	}
	defer out.close()

	stop, stopped := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-stopped }()
	go func() {
		defer close(stopped)
		in, top := int(out.dir.Fd()), int(root.dir.Fd())
		swaps := []func() error{
			func() error { return unix.Renameat2(in, "d", top, "link-d", unix.RENAME_EXCHANGE) },
			func() error { return unix.Renameat2(in, "file", top, "link-file", unix.RENAME_EXCHANGE) },
			func() error { return unix.Renameat2(top, "out", top, "link-out", unix.RENAME_EXCHANGE) },
		}
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				if err := swaps[i%len(swaps)](); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	var whole, links, failed int
	for deadline := time.Now().Add(time.Minute); whole < 50 && time.Now().Before(deadline); {
		var archive bytes.Buffer
		if err := writeArchive(&archive, root, "/out"); err != nil {
			failed++ // a file was gone, or a link
			continue
		}
		text := unpack(t, &archive)
		switch {
		case strings.Contains(text, "secret"):
			t.Fatal("the archive holds what lies outside")
		case strings.Contains(text, "inside"):
			whole++
		default:
			links++
		}
	}
	t.Logf("%d with files, %d with links only, %d failed", whole, links, failed)
	if whole < 50 || failed == 0 {
		t.Error("too little was tried")
	}
}

// unpack returns all contents of an archive.
func unpack(t *testing.T, r io.Reader) string {
	t.Helper()
	unzipped, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for archive := tar.NewReader(unzipped); ; {
		if _, err := archive.Next(); err == io.EOF {
			return text.String()
		} else if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(&text, archive); err != nil {
			t.Fatal(err)
		}
	}
}
