package step

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// packed returns a tarball. The content of each file is its name.
func packed(t *testing.T, entries ...tar.Header) io.Reader {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	archive := tar.NewWriter(compressed)
	for _, h := range entries {
		h.Mode = 0o640
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := archive.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(archive, h.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(archive.Close(), compressed.Close()); err != nil {
		t.Fatal(err)
	}
	return &out
}

// Nothing of a tarball lands outside of the folder that it is unpacked to.
func TestUntarStaysInside(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	link := func(name, target string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
	}
	for name, c := range map[string]struct {
		entries []tar.Header
		err     string
	}{
		"file above":        {[]tar.Header{file("../evil")}, "illegal file path: ../evil"},
		"file above by dir": {[]tar.Header{file("d/../../evil")}, "illegal file path: d/../../evil"},
		"the folder itself": {[]tar.Header{{Typeflag: tar.TypeDir, Name: "."}}, "illegal file path: ."},
		"link above":        {[]tar.Header{link("d/l", "../../evil")}, "illegal symlink target: d/l -> ../../evil"},
		"absolute link":     {[]tar.Header{link("l", "/etc/passwd")}, "illegal symlink target: l -> /etc/passwd"},
		"two links": {[]tar.Header{
			{Typeflag: tar.TypeDir, Name: "a"}, link("d/e/l", "../../a"), link("d/e/out", "l/../../.."), file("d/e/out/evil"),
		}, "illegal symlink target"},
		"two links whose texts stay inside": {[]tar.Header{
			{Typeflag: tar.TypeDir, Name: "a"}, link("d/e/l", "../../a"), link("d/e/out", "l/../../evil"), file("d/e/out"),
		}, "escapes"},
		"absolute file": {[]tar.Header{file("/evil")}, ""},
		"device":        {[]tar.Header{{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}, file("a"), file("b")}, ""},
		"hard link":     {[]tar.Header{{Typeflag: tar.TypeLink, Name: "l", Linkname: "../../evil"}, file("a")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(dir+"/root", 0o755); err != nil {
				t.Fatal(err)
			}
			root, err := os.OpenRoot(dir + "/root")
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			err = untar(packed(t, c.entries...), root, "to")
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %q", err, c.err)
			}
			above, err := os.ReadDir(dir)
			if err != nil || len(above) != 1 {
				t.Errorf("%v outside, %v", above, err)
			}
			beside, err := os.ReadDir(dir + "/root")
			if err != nil || len(beside) != 1 {
				t.Errorf("%v beside, %v", beside, err)
			}
		})
	}
}

func TestUntar(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := untar(packed(t, tar.Header{Typeflag: tar.TypeReg, Name: "one"}), root, "file"); err != nil {
		t.Fatal(err)
	}
	if text, err := root.ReadFile("file"); string(text) != "one" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	if err := untar(packed(t, tar.Header{Typeflag: tar.TypeReg, Name: "d/one"}, tar.Header{Typeflag: tar.TypeReg, Name: "two"}), root, "folder"); err != nil {
		t.Fatal(err)
	}
	if text, err := root.ReadFile("folder/d/one"); string(text) != "d/one" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	if err := untar(packed(t), root, "empty"); err != nil {
		t.Fatal(err)
	}
	if info, err := root.Stat("empty"); err != nil || !info.IsDir() {
		t.Errorf("got %v, %v", info, err)
	}
	if err := untar(strings.NewReader("no archive"), root, "none"); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, gzip.ErrHeader) {
		t.Errorf("got %v", err)
	}
}
