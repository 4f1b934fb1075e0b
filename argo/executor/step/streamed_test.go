package step

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/artifact/archive"
	"github.com/wasmshim/containerd-shim-wasm/artifact/unpack"
)

// inMemory is an object in memory.
type inMemory []byte

func (o inMemory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(o).ReadAt(p, off)
}

// tgz returns a tarball. A name that ends with "/" is a folder's.
func tgz(t testing.TB, headers ...tar.Header) inMemory {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	all := tar.NewWriter(compressed)
	for i, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(h.Name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1e9+int64(i), 0)
		}
		if err := all.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := all.Write(incompressible(int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	all.Close()
	compressed.Close()
	return out.Bytes()
}

func incompressible(size int) []byte {
	p := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{}).Read(p)
	return p
}

func zipped(t testing.TB, headers ...zip.FileHeader) inMemory {
	t.Helper()
	var out bytes.Buffer
	all := zip.NewWriter(&out)
	for i, h := range headers {
		w, err := all.CreateHeader(&h)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(h.Name, "/") {
			fmt.Fprintf(w, "content %d", i)
		}
	}
	all.Close()
	return out.Bytes()
}

// packedByArgo returns a tarball of a file or a folder as Argo's steps make it.
func packedByArgo(t testing.TB, make func(name string)) inMemory {
	t.Helper()
	root := t.TempDir()
	make(root + "/out")
	var out bytes.Buffer
	if err := argo.WriteArchive(&out, root, "/out", "/", gzip.DefaultCompression); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func write(t testing.TB, name string, size int, mode fs.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(name, incompressible(size), 0o600), os.Chmod(name, mode)); err != nil {
		t.Fatal(err)
	}
}

type archived struct {
	content  inMemory
	strategy string // as in a template
	kind     archive.Kind
	fails    bool // after Look has taken it for something else
	mode     *int32
	recurse  bool
}

func archives(t testing.TB) map[string]archived {
	mode := int32(0o640)
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	file := func(name string) tar.Header { return tar.Header{Name: name, Size: 1000, Mode: 0o640} }
	dir := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o700} }
	folder := packedByArgo(t, func(name string) {
		mustDir(t, name+"/sub/empty")
		write(t, name+"/a", 300_000, 0o600)
		write(t, name+"/sub/b", 0, 0o755)
		write(t, name+"/sub/c", 3_000_000, 0o444)
		if err := os.Symlink("sub/c", name+"/l"); err != nil {
			t.Fatal(err)
		}
	})
	single := packedByArgo(t, func(name string) { write(t, name, 3_000_000, 0o751) })
	long := []tar.Header{dir("d/"), {Name: "d/a", Size: 2 << 20, Mode: 0o644}, file("d/b")}
	argos := append([]tar.Header{dir("d")}, long[1:]...)
	multi := append(bytes.Clone(tgz(t, file("f"))), tgz(t, file("g"))...)
	return map[string]archived{
		"Argo's folder":             {content: folder, kind: archive.Tree},
		"Argo's folder, tar":        {content: folder, strategy: "tar", kind: archive.Tree},
		"Argo's folder, none":       {content: folder, strategy: "none", kind: archive.Plain},
		"Argo's folder, mode":       {content: folder, kind: archive.Tree, mode: &mode},
		"Argo's folder, modes":      {content: folder, kind: archive.Tree, mode: &mode, recurse: true},
		"Argo's folder, long":       {content: tgz(t, argos...), kind: archive.Tree},
		"Argo's folder, and others": {content: tgz(t, append(argos, file("e"))...), kind: archive.Tree, fails: true},
		"Argo's folder, twice":      {content: tgz(t, dir("d"), file("d/x"), file("d/x")), kind: archive.Tree, fails: true},
		"Argo's file":               {content: single, kind: archive.Regular},
		"Argo's file, mode":         {content: single, kind: archive.Regular, mode: &mode},
		"Argo's file, empty":        {content: tgz(t, tar.Header{Name: "x"}), kind: archive.Regular},
		"Argo's file, long name":    {content: tgz(t, file(strings.Repeat("é", 120))), kind: archive.Regular},
		"long folder":               {content: tgz(t, long...), kind: archive.Unknown},
		"long folders":              {content: tgz(t, append([]tar.Header{dir("e/")}, long...)...), kind: archive.Tree},
		"folder":                    {content: tgz(t, dir("d/"), file("d/x")), kind: archive.Tree},
		"folder, implicit":          {content: tgz(t, file("d/e/x"), file("d/e/y")), kind: archive.Tree},
		"folder in a folder":        {content: tgz(t, dir("d/"), dir("d/e/"), file("d/e/y")), kind: archive.Tree},
		"empty folder":              {content: tgz(t, dir("d/")), kind: archive.Tree},
		"many":                      {content: tgz(t, file("x"), file("y")), kind: archive.Tree},
		"skipped":                   {content: tgz(t, tar.Header{Name: "p", Typeflag: tar.TypeFifo}, file("y")), kind: archive.Regular},
		"only skipped":              {content: tgz(t, tar.Header{Name: "p", Typeflag: tar.TypeFifo}), kind: archive.Tree},
		"links":                     {content: tgz(t, link("l", "d/x"), file("d/x"), link("d/u", "../l")), kind: archive.Tree},
		"only a link":               {content: tgz(t, link("l", "x")), kind: archive.Unknown},
		"through a link":            {content: tgz(t, dir("d/"), link("l", "d"), file("l/x")), kind: archive.Tree},
		"dot":                       {content: tgz(t, dir("./"), file("./x")), kind: archive.Unknown},
		"dots":                      {content: tgz(t, file("./x"), file("./y/./z")), kind: archive.Tree},
		"outside":                   {content: tgz(t, file("../x")), kind: archive.Unknown},
		"twice":                     {content: tgz(t, file("x"), file("x")), kind: archive.Unknown},
		"long name":                 {content: tgz(t, file(strings.Repeat("n", 256)+"/x")), kind: archive.Unknown},
		"NUL":                       {content: zipped(t, zip.FileHeader{Name: "a\x00/x"}), strategy: "zip", kind: archive.Unknown},
		"members":                   {content: multi, kind: archive.Regular},
		"no tarball":                {content: inMemory("text"), kind: archive.Plain},
		"no tarball, tar":           {content: inMemory("text"), strategy: "tar", kind: archive.Unknown},
		"empty":                     {content: inMemory{}, kind: archive.Plain},
		"no entries":                {content: tgz(t), kind: archive.Plain},
		"no entries, tar":           {content: tgz(t), strategy: "tar", kind: archive.Tree},
		"zip":                       {content: zipped(t, zip.FileHeader{Name: "x"}, zip.FileHeader{Name: "d/y", Method: zip.Deflate}), strategy: "zip", kind: archive.Tree},
		"zip, not said":             {content: zipped(t, zip.FileHeader{Name: "x"}), kind: archive.Plain},
		"zip, file":                 {content: zipped(t, modeOf(0o750, zip.FileHeader{Name: "x", Method: zip.Deflate})), strategy: "zip", kind: archive.Regular},
		"zip, folder":               {content: zipped(t, modeOf(0o710|fs.ModeDir, zip.FileHeader{Name: "d/"}), modeOf(0o600, zip.FileHeader{Name: "d/e/x"})), strategy: "zip", kind: archive.Tree},
		"zip, folder implicit":      {content: zipped(t, modeOf(0o700, zip.FileHeader{Name: "/d/e/x"})), strategy: "zip", kind: archive.Tree},
		"zip, empty":                {content: zipped(t), strategy: "zip", kind: archive.Tree},
		"zip, twice":                {content: zipped(t, zip.FileHeader{Name: "x"}, zip.FileHeader{Name: "x"}), strategy: "zip", kind: archive.Unknown},
		"zip, outside":              {content: zipped(t, zip.FileHeader{Name: "../x"}), strategy: "zip", kind: archive.Unknown},
		"no zip":                    {content: inMemory("text"), strategy: "zip", kind: archive.Unknown},
	}
}

func modeOf(mode fs.FileMode, h zip.FileHeader) zip.FileHeader {
	h.SetMode(mode)
	return h
}

func (a archived) format() archive.Format {
	return map[string]archive.Format{"tar": archive.Tar, "zip": archive.Zip}[a.strategy]
}

// inInit unpacks as init does.
func (a archived) inInit(t testing.TB, in *os.Root) error {
	s := &step{}
	strategy := &executor.ArchiveStrategy{}
	switch a.strategy {
	case "tar":
		strategy.Tar = &executor.TarStrategy{}
	case "zip":
		strategy.Zip = &struct{}{}
	}
	if err := in.WriteFile("loaded", a.content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.unpack(t.Context(), strategy, in, "loaded", "unpacked", "artifact"); err != nil || a.mode == nil {
		return err
	}
	return chmod(in, "artifact", os.FileMode(*a.mode), a.recurse)
}

// streamed unpacks as a plan says.
func (a archived) streamed(t testing.TB, plan archive.Plan, in *os.Root) error {
	o := unpack.Options{Name: "a", Recurse: a.recurse, Log: slog.New(slog.DiscardHandler)}
	if a.mode != nil {
		mode := fs.FileMode(*a.mode)
		o.Mode = &mode
	}
	var made *unpack.Artifact
	var err error
	if plan.Kind == archive.Tree {
		if err := in.Mkdir("artifact", 0o700); err != nil {
			t.Fatal(err)
		}
		place, openErr := in.OpenRoot("artifact")
		if openErr != nil {
			t.Fatal(openErr)
		}
		made, err = unpack.NewFolder(plan, place, o)
	} else {
		place, openErr := in.OpenFile("artifact", os.O_RDWR|os.O_CREATE, 0o600)
		if openErr != nil {
			t.Fatal(openErr)
		}
		made, err = unpack.NewFile(plan, place, o)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	return made.Unpack(t.Context(), a.content, int64(len(a.content)))
}

// listing describes what is at a path and below it.
func listing(t testing.TB, in *os.Root, start time.Time) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(in.Name()+"/artifact", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s %v", strings.TrimPrefix(name, in.Name()), info.Mode())
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			modified := "new"
			if info.ModTime().Before(start) {
				modified = info.ModTime().String()
			}
			fmt.Fprintf(&out, " %s %x", modified, content)
		case info.Mode()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(name)
			fmt.Fprintf(&out, " -> %s", to)
		}
		out.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return out.String()
}

func umask(t testing.TB, mask int) {
	old := unix.Umask(mask)
	t.Cleanup(func() { unix.Umask(old) })
}

// What is unpacked while it streams in is what init would leave.
func TestUnpackedIsInits(t *testing.T) {
	umask(t, 0)
	for name, a := range archives(t) {
		t.Run(name, func(t *testing.T) {
			if a.strategy == "none" {
				t.Skip("nobody looks")
			}
			plan, err := archive.Look(t.Context(), a.content, int64(len(a.content)), a.format())
			if err != nil || plan.Kind != a.kind {
				t.Fatalf("got %+v, %v, want kind %d", plan, err, a.kind)
			}
			a.compare(t, plan)
		})
	}
}

func (a archived) compare(t testing.TB, plan archive.Plan) {
	t.Helper()
	if plan.Kind != archive.Tree && plan.Kind != archive.Regular {
		return
	}
	start := time.Now().Add(-time.Minute)
	inits, ours := folder(t), folder(t)
	initErr := a.inInit(t, inits)
	err := a.streamed(t, plan, ours)
	if a.fails {
		if err == nil {
			t.Error("it is unpacked")
		}
		return
	}
	if (err != nil) != (initErr != nil) {
		t.Fatalf("init: %v, streamed: %v", initErr, err)
	}
	if err != nil {
		return
	}
	if got, want := listing(t, ours, start), listing(t, inits, start); got != want {
		t.Errorf("got\n%.1000swant\n%.1000s", got, want)
	}
}

// An archive that ends early, or is damaged, is an error, or what init makes of it.
func TestUnpackedDamaged(t *testing.T) {
	umask(t, 0)
	for name, a := range archives(t) {
		if len(a.content) > 100_000 || a.strategy == "none" || a.fails || a.recurse {
			continue
		}
		t.Run(name, func(t *testing.T) {
			for i := 0; i < len(a.content); i += 1 + len(a.content)/40 {
				cut, bad := a, a
				cut.content = a.content[:i]
				bad.content = bytes.Clone(a.content)
				bad.content[i] ^= 0x55
				for _, a := range []archived{cut, bad} {
					a.noWrong(t)
				}
			}
		})
	}
}

// noWrong compares without knowing what it is. Streaming may fail where init does not, as documented.
func (a archived) noWrong(t testing.TB) {
	t.Helper()
	plan, err := archive.Look(t.Context(), a.content, int64(len(a.content)), a.format())
	if err != nil {
		t.Fatal(err)
	}
	inits, ours := folder(t), folder(t)
	initErr := a.inInit(t, inits)
	switch plan.Kind {
	case archive.Unknown:
		return
	case archive.Plain:
		content, err := inits.ReadFile("artifact")
		if initErr != nil || err != nil || !bytes.Equal(content, a.content) {
			t.Errorf("it is plain; init: %v, %v", initErr, err)
		}
		return
	}
	start := time.Now().Add(-time.Minute)
	if a.streamed(t, plan, ours) != nil {
		return
	}
	if initErr != nil {
		t.Fatalf("it is unpacked; init: %v", initErr)
	}
	if got, want := listing(t, ours, start), listing(t, inits, start); got != want {
		t.Errorf("got\n%.1000swant\n%.1000s", got, want)
	}
}

func FuzzLook(f *testing.F) {
	for _, a := range archives(f) {
		if len(a.content) < 10_000 {
			f.Add([]byte(a.content), a.strategy == "zip", a.strategy == "tar")
		}
	}
	umask(f, 0)
	f.Fuzz(func(t *testing.T, content []byte, zip, tar bool) {
		a := archived{content: content}
		switch {
		case zip:
			a.strategy = "zip"
		case tar:
			a.strategy = "tar"
		}
		a.noWrong(t)
	})
}

// What Look reads is bounded, and an error of the store is its error.
func TestLookReadsLittle(t *testing.T) {
	for name, a := range archives(t) {
		if len(a.content) < 1<<20 {
			continue
		}
		counted := &countedObject{inMemory: a.content}
		if _, err := archive.Look(t.Context(), counted, int64(len(a.content)), a.format()); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes of %d in %d requests", name, counted.n, len(a.content), counted.requests)
		if counted.n > archive.LookLimit+4 {
			t.Errorf("%s: it reads %d bytes", name, counted.n)
		}
		for fail := range counted.requests {
			broken := &countedObject{inMemory: a.content, fail: fail + 1}
			if plan, err := archive.Look(t.Context(), broken, int64(len(a.content)), a.format()); !errors.Is(err, errBroken) {
				t.Errorf("%s: got %+v, %v", name, plan, err)
			}
		}
	}
}

var errBroken = errors.New("broken")

type countedObject struct {
	inMemory
	n, requests int
	fail        int // the request that fails, from 1
}

func (c *countedObject) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if c.requests++; c.requests == c.fail {
		return 0, errBroken
	}
	n, err := c.inMemory.ReadAt(ctx, p, off)
	c.n += n
	return n, err
}
