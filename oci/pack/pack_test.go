package pack_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/testimage"
	"github.com/wasmshim/containerd-shim-wasm/oci/pack"
)

const module = "\x00asm\x01\x00\x00\x00"

// component is a command.
var component = string(testimage.Component([]string{"wasi:io/streams@0.2.3", "wasi:cli/exit@0.2.3"}, []string{"wasi:cli/run@0.2.3"}))

// write writes a file of that name in a new folder.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func format(t *testing.T, name string) pack.Format {
	t.Helper()
	f, err := pack.FormatNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func pack1(t *testing.T, o pack.Options) *pack.Image {
	t.Helper()
	image, err := pack.Make(o)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// layout is the content of a tar that was written.
type layout struct {
	t     *testing.T
	index ocispec.Index
	blobs map[digest.Digest][]byte
}

// readBack writes an image to a tar and reads it without using the code under test.
func readBack(t *testing.T, image *pack.Image) layout {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := image.WriteTar(path, "example.com/test:v1", false); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	l := layout{t: t, blobs: map[digest.Digest][]byte{}}
	for name, content := range untar(t, file) {
		if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			l.blobs[digest.NewDigestFromEncoded(digest.SHA256, hex)] = content
		} else if name == "index.json" {
			l.decode(content, &l.index)
		}
	}
	for key, content := range l.blobs {
		if digest.FromBytes(content) != key {
			t.Errorf("blob %s is not what it is called", key)
		}
	}
	if len(l.index.Manifests) != 1 || l.index.Manifests[0].Digest != image.Root.Digest {
		t.Fatalf("the layout's index has %+v, want %s", l.index.Manifests, image.Root.Digest)
	}
	return l
}

func untar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if !header.ModTime.IsZero() && header.ModTime.Unix() != 0 {
			t.Errorf("%s has a time", header.Name)
		}
		if files[header.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}

func (l layout) decode(content []byte, into any) {
	l.t.Helper()
	if err := json.Unmarshal(content, into); err != nil {
		l.t.Fatalf("%v in %s", err, content)
	}
}

// blob returns the content of a descriptor.
func (l layout) blob(d ocispec.Descriptor) []byte {
	l.t.Helper()
	content, ok := l.blobs[d.Digest]
	if !ok || int64(len(content)) != d.Size {
		l.t.Fatalf("%s %s: there: %v, %d bytes, want %d", d.MediaType, d.Digest, ok, len(content), d.Size)
	}
	return content
}

func (l layout) manifest() ocispec.Manifest {
	l.t.Helper()
	var m ocispec.Manifest
	l.decode(l.blob(l.index.Manifests[0]), &m)
	return m
}

func (l layout) config(m ocispec.Manifest) ocispec.Image {
	l.t.Helper()
	var c ocispec.Image
	l.decode(l.blob(m.Config), &c)
	return c
}

// Each format has the media types, the platform and the entry point of its specification.
func TestFormats(t *testing.T) {
	const (
		ociManifest = "application/vnd.oci.image.manifest.v1+json"
		ociConfig   = "application/vnd.oci.image.config.v1+json"
		ociFiles    = "application/vnd.oci.image.layer.v1.tar+gzip"
		plain       = "application/wasm"
	)
	want := map[string]struct {
		manifest, config, layer, platform string
		entry                             []string
		file                              string // in a layer of files
	}{
		"image":       {ociManifest, ociConfig, ociFiles, "", []string{"/app.wasm"}, "app.wasm"},
		"docker":      {"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip", "", []string{"/app.wasm"}, "app.wasm"},
		"compat":      {ociManifest, ociConfig, ociFiles, "", nil, "plugin.wasm"},
		"crun":        {ociManifest, ociConfig, ociFiles, "wasi/wasm", []string{"/app.wasm"}, "app.wasm"},
		"layer":       {ociManifest, ociConfig, plain, "wasi/wasm", []string{"/app.wasm"}, ""},
		"runwasi":     {ociManifest, ociConfig, "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm", "wasi/wasm", []string{"/app.wasm"}, ""},
		"artifact":    {ociManifest, "application/vnd.wasm.config.v0+json", plain, "wasip1/wasm", nil, ""},
		"oras":        {ociManifest, "application/vnd.unknown.config.v1+json", plain, "none", nil, ""},
		"wasm-to-oci": {ociManifest, "application/vnd.wasm.config.v1+json", "application/vnd.wasm.content.layer.v1+wasm", "none", nil, ""},
	}
	if len(want) != len(pack.Formats()) {
		t.Errorf("%d formats are checked, there are %d", len(want), len(pack.Formats()))
	}
	for _, f := range pack.Formats() {
		t.Run(f.Name, func(t *testing.T) {
			want := want[f.Name]
			l := readBack(t, pack1(t, pack.Options{Modules: []string{write(t, "app.wasm", module)}, Format: f}))
			m := l.manifest()
			if got := l.index.Manifests[0].MediaType; got != want.manifest {
				t.Errorf("manifest %s, want %s", got, want.manifest)
			}
			if m.Config.MediaType != want.config || len(m.Layers) != 1 || m.Layers[0].MediaType != want.layer {
				t.Errorf("config %s, layers %+v, want %s, %s", m.Config.MediaType, m.Layers, want.config, want.layer)
			}
			c := l.config(m)
			if got := c.OS + "/" + c.Architecture; want.platform == "" && c.OS != "linux" || strings.Contains(want.platform, "/") && got != want.platform {
				t.Errorf("platform %s, want %s", got, want.platform)
			}
			if !slices.Equal(c.Config.Entrypoint, want.entry) {
				t.Errorf("entry point %q, want %q", c.Config.Entrypoint, want.entry)
			}
			content := l.blob(m.Layers[0])
			if want.file == "" {
				if string(content) != module || m.Layers[0].Annotations["org.opencontainers.image.title"] != "app.wasm" {
					t.Errorf("the layer is %q, annotations %v", content, m.Layers[0].Annotations)
				}
				return
			}
			reader, err := gzip.NewReader(bytes.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			archive, err := io.ReadAll(reader)
			if err != nil {
				t.Fatal(err)
			}
			if files := untar(t, bytes.NewReader(archive)); string(files[want.file]) != module {
				t.Errorf("the layer holds %v", files)
			}
			if !slices.Equal(c.RootFS.DiffIDs, []digest.Digest{digest.FromBytes(archive)}) {
				t.Errorf("diff ids %v", c.RootFS.DiffIDs)
			}
		})
	}
}

func TestAnnotationsOfFormats(t *testing.T) {
	for name, want := range map[string]string{"compat": "module.wasm.image/variant=compat", "crun": "run.oci.handler=wasm"} {
		o := pack.Options{Modules: []string{write(t, "app.wasm", module)}, Format: format(t, name), Annotations: map[string]string{"own": "1"}}
		got := readBack(t, pack1(t, o)).manifest().Annotations
		key, value, _ := strings.Cut(want, "=")
		if got[key] != value || got["own"] != "1" {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestCNCFConfigNamesTheLayer(t *testing.T) {
	l := readBack(t, pack1(t, pack.Options{Modules: []string{write(t, "app.wasm", module)}, Format: format(t, "artifact")}))
	var config struct {
		Created      string
		LayerDigests []digest.Digest
	}
	m := l.manifest()
	l.decode(l.blob(m.Config), &config)
	if !slices.Equal(config.LayerDigests, []digest.Digest{m.Layers[0].Digest}) || config.Created == "" {
		t.Errorf("config %+v", config)
	}
}

// A component can be packed in every format that a module can, with the media types for components.
func TestComponents(t *testing.T) {
	for _, f := range pack.Formats() {
		m := readBack(t, pack1(t, pack.Options{Modules: []string{write(t, "app.wasm", component)}, Format: f})).manifest()
		want := map[string]string{
			"layer": "application/wasm", "artifact": "application/wasm", "oras": "application/wasm",
			"runwasi":     "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
			"wasm-to-oci": "application/vnd.wasm.content.layer.v1+wasm",
		}[f.Name]
		if want == "" {
			continue // it is a file
		}
		if d := m.Layers[0]; d.MediaType != want || d.Digest != digest.FromString(component) {
			t.Errorf("%s: its layer is %s, %s, want %s", f.Name, d.MediaType, d.Digest, want)
		}
	}
	for _, mediaType := range []string{"application/vnd.w3c.wasm.component.v1+wasm", "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm", "application/vnd.wasm.component.v1+wasm"} {
		o := pack.Options{Modules: []string{write(t, "app.wasm", component)}, Format: format(t, "layer"), MediaType: mediaType}
		if d := readBack(t, pack1(t, o)).manifest().Layers[0]; d.MediaType != mediaType || d.Digest != digest.FromString(component) {
			t.Errorf("its layer is %s, %s, want %s", d.MediaType, d.Digest, mediaType)
		}
	}
}

// The CNCF's layout has a config with a component's exports, imports and target.
func TestCNCFConfigOfComponents(t *testing.T) {
	noImports := string(testimage.Component(nil, []string{"own:app/api"}))
	for content, want := range map[string]string{
		component: `"os":"wasip2","layerDigests":["` + digest.FromString(component).String() + `"],` +
			`"component":{"exports":["wasi:cli/run@0.2.3"],"imports":["wasi:io/streams@0.2.3","wasi:cli/exit@0.2.3"],"target":"wasi:cli/command@0.2.3"}}`,
		noImports: `"os":"wasip2","layerDigests":["` + digest.FromString(noImports).String() + `"],"component":{"exports":["own:app/api"],"imports":[]}}`,
		module:    `"os":"wasip1","layerDigests":["` + digest.FromString(module).String() + `"]}`,
	} {
		l := readBack(t, pack1(t, pack.Options{Modules: []string{write(t, "app.wasm", content)}, Format: format(t, "artifact")}))
		if got := string(l.blob(l.manifest().Config)); got != `{"created":"1970-01-01T00:00:00Z","architecture":"wasm",`+want {
			t.Errorf("the config is %s, want its end to be %s", got, want)
		}
	}
}

func TestSameInputSameImage(t *testing.T) {
	dir := t.TempDir()
	for _, f := range pack.Formats() {
		var digests []digest.Digest
		for range 2 {
			path := write(t, "app.wasm", module)
			digests = append(digests, pack1(t, pack.Options{Modules: []string{path}, Format: f}).Root.Digest)
		}
		if digests[0] != digests[1] {
			t.Errorf("%s: packed twice, it is not the same", f.Name)
		}
	}
	var tars [][]byte
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		image := pack1(t, pack.Options{Modules: []string{write(t, "app.wasm", module)}})
		if err := image.WriteTar(path, "example.com/test:v1", false); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		tars = append(tars, content)
	}
	if !bytes.Equal(tars[0], tars[1]) {
		t.Error("the tars differ")
	}
}

func TestEverythingThatAnImageCanHave(t *testing.T) {
	l := readBack(t, pack1(t, pack.Options{
		Modules: []string{write(t, "app.wasm", module), write(t, "other.wasm", module+"\x00\x01\x00")},
		Format:  format(t, "layer"), Platforms: []string{"linux/arm64/v8"},
		Entrypoint: []string{"other.wasm#serve", "--fast"}, Args: []string{"a", "b c"}, Env: []string{"A=1", "B="},
		Files:     []pack.File{{Host: write(t, "x", "text"), Guest: "/etc/deep/x"}},
		MediaType: "application/vnd.w3c.wasm.module.v1+wasm", Compression: "gzip",
	}))
	m := l.manifest()
	c := l.config(m)
	if c.OS != "linux" || c.Architecture != "arm64" || c.Variant != "v8" {
		t.Errorf("platform %+v", c.Platform)
	}
	if !slices.Equal(c.Config.Entrypoint, []string{"other.wasm#serve", "--fast"}) || !slices.Equal(c.Config.Cmd, []string{"a", "b c"}) || !slices.Equal(c.Config.Env, []string{"A=1", "B="}) {
		t.Errorf("config %+v", c.Config)
	}
	if len(m.Layers) != 3 || len(c.RootFS.DiffIDs) != 1 {
		t.Fatalf("%d layers, %d diff ids, want 3 and, of files only, 1", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	for n, title := range []string{"", "app.wasm", "other.wasm"} {
		d := m.Layers[n]
		if d.Annotations["org.opencontainers.image.title"] != title || n > 0 && d.MediaType != "application/vnd.w3c.wasm.module.v1+wasm+gzip" {
			t.Errorf("layer %d: %+v", n, d)
		}
	}
}

func TestSeveralPlatformsMakeAnIndex(t *testing.T) {
	l := readBack(t, pack1(t, pack.Options{
		Modules: []string{write(t, "app.wasm", module)}, Format: format(t, "layer"), Platforms: []string{"linux/amd64", "wasi/wasm"},
	}))
	var index ocispec.Index
	l.decode(l.blob(l.index.Manifests[0]), &index)
	if index.MediaType != ocispec.MediaTypeImageIndex || len(index.Manifests) != 2 {
		t.Fatalf("index %+v", index)
	}
	for n, system := range []string{"linux", "wasi"} {
		var m ocispec.Manifest
		l.decode(l.blob(index.Manifests[n]), &m)
		if got := l.config(m).OS; got != system || index.Manifests[n].Platform.OS != system {
			t.Errorf("manifest %d is for %s and %s, want %s", n, index.Manifests[n].Platform.OS, got, system)
		}
	}
}

func TestWhatCannotBePacked(t *testing.T) {
	app := write(t, "app.wasm", module)
	text := write(t, "x", "text")
	for name, c := range map[string]struct {
		o    pack.Options
		want string
	}{
		"no module":           {pack.Options{}, "name a .wasm file"},
		"text":                {pack.Options{Modules: []string{text}}, "data of an unknown kind"},
		"text format":         {pack.Options{Modules: []string{write(t, "a.wat", "(module)")}}, "text format"},
		"native":              {pack.Options{Modules: []string{write(t, "a", "\x7fELF\x02\x01\x01\x00")}}, "native program"},
		"empty":               {pack.Options{Modules: []string{write(t, "a.wasm", "")}}, "nothing"},
		"folder":              {pack.Options{Modules: []string{t.TempDir()}}, "not a regular file"},
		"not there":           {pack.Options{Modules: []string{"/not/there.wasm"}}, "no such file"},
		"same names":          {pack.Options{Modules: []string{app, write(t, "app.wasm", module)}}, "rename one"},
		"environment":         {pack.Options{Modules: []string{app}, Env: []string{"A"}}, "NAME=value"},
		"entry point":         {pack.Options{Modules: []string{app}, Entrypoint: []string{"/other.wasm"}}, "not one of the modules in the image: /app.wasm"},
		"entry point in PATH": {pack.Options{Modules: []string{app}, Entrypoint: []string{"app.wasm"}}, "not one of the modules"},
		"platform":            {pack.Options{Modules: []string{app}, Platforms: []string{"wasm"}}, "os/architecture"},
		"platform twice":      {pack.Options{Modules: []string{app}, Platforms: []string{"wasi/wasm", "wasi/wasm"}}, "given twice"},
		"media type":          {pack.Options{Modules: []string{app}, Format: format(t, "layer"), MediaType: "text/plain"}, "not a media type of Wasm"},
		"media type of files": {pack.Options{Modules: []string{app}, MediaType: "application/wasm"}, "where the module is a layer"},
		"compression":         {pack.Options{Modules: []string{app}, Compression: "lz4"}, "unknown compression"},
		"zip of files":        {pack.Options{Modules: []string{app}, Compression: "zip"}, "cannot be compressed with zip"},
		"docker zstd":         {pack.Options{Modules: []string{app}, Format: format(t, "docker"), Compression: "zstd"}, "cannot be compressed"},
		"artifact entry":      {pack.Options{Modules: []string{app}, Format: format(t, "artifact"), Entrypoint: []string{"/app.wasm"}}, "no place for an entry point"},
		"artifact files":      {pack.Options{Modules: []string{app}, Format: format(t, "oras"), Files: []pack.File{{Host: text, Guest: "/x"}}}, "no place for files"},
		"artifact of two":     {pack.Options{Modules: []string{app, write(t, "b.wasm", module)}, Format: format(t, "artifact")}, "exactly one module"},
		"damaged component":   {pack.Options{Modules: []string{write(t, "c.wasm", component[:20])}, Format: format(t, "artifact")}, "the component ends too early"},
		"component's system":  {pack.Options{Modules: []string{write(t, "c.wasm", component)}, Format: format(t, "artifact"), Platforms: []string{"wasip1/wasm"}}, "whose platform is wasip2/wasm there"},
		"module's system":     {pack.Options{Modules: []string{app}, Format: format(t, "artifact"), Platforms: []string{"wasip2/wasm"}}, "whose platform is wasip1/wasm there"},
		"component's type":    {pack.Options{Modules: []string{app, write(t, "c.wasm", component)}, Format: format(t, "layer"), MediaType: "application/vnd.w3c.wasm.module.v1+wasm"}, "give application/vnd.w3c.wasm.component.v1+wasm"},
		"module's type":       {pack.Options{Modules: []string{app}, Format: format(t, "layer"), MediaType: "application/vnd.wasm.component.v1+wasm"}, "give application/vnd.w3c.wasm.module.v1+wasm"},
		"oras platform":       {pack.Options{Modules: []string{app}, Format: format(t, "oras"), Platforms: []string{"wasi/wasm"}}, "no place for a platform"},
		"file over module":    {pack.Options{Modules: []string{app}, Files: []pack.File{{Host: text, Guest: "/app.wasm"}}}, "two files are to be /app.wasm"},
		"file as folder":      {pack.Options{Modules: []string{app}, Files: []pack.File{{Host: text, Guest: "/app.wasm/x"}}}, "a file and, for"},
	} {
		if _, err := pack.Make(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestTarReplacesNothingByItself(t *testing.T) {
	image := pack1(t, pack.Options{Modules: []string{write(t, "app.wasm", module)}})
	path := write(t, "image.tar", "precious")
	if err := image.WriteTar(path, "example.com/test:v1", false); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v, want that it exists", err)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "precious" {
		t.Errorf("it is now %q, %v", content, err)
	}
	if err := image.WriteTar(path, "example.com/test:v1", true); err != nil {
		t.Error(err)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) == "precious" {
		t.Errorf("it is still there: %v", err)
	}
}

func TestFileThatChangesWhileItIsPacked(t *testing.T) {
	for name, content := range map[string]string{"shorter": module[:4], "longer": module + "\x00\x01\x00", "other": "\x00asm\x01\x00\x00\x01"} {
		path := write(t, "app.wasm", module)
		image := pack1(t, pack.Options{Modules: []string{path}, Format: format(t, "layer")})
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := image.WriteTar(filepath.Join(dir, "image.tar"), "example.com/test:v1", false); err == nil || !strings.Contains(err.Error(), "changed") {
			t.Errorf("%s: got %v", name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind %v, %v", name, left, err)
		}
	}
}

func TestName(t *testing.T) {
	for text, want := range map[string]string{
		"hello":                           "docker.io/library/hello:latest",
		"team/hello:v1":                   "docker.io/team/hello:v1",
		"localhost:5000/hello":            "localhost:5000/hello:latest",
		"[::1]:5000/hello":                "[::1]:5000/hello:latest",
		"docker.io/library/hello":         "docker.io/library/hello:latest",
		"a/b__c/d-e.f:V_1":                "docker.io/a/b__c/d-e.f:V_1",
		"registry.example.com/a/b/c:v1.0": "registry.example.com/a/b/c:v1.0",
	} {
		if got, err := pack.Name(text); err != nil || got != want {
			t.Errorf("Name(%q) = %q, %v, want %q", text, got, err, want)
		}
		if parsed, err := reference.ParseDockerRef(want); err != nil || parsed.String() != want {
			t.Errorf("containerd takes %q for %v, %v", want, parsed, err)
		}
	}
	for _, text := range []string{"", "Hello", "a b", "hello:", "hello@sha256:" + strings.Repeat("0", 64), "../x", "a//b", "-a", "a/b-", "a:.x", "a:-x", "a.:5000/b", "a/../b", "/a", "a:b:c"} {
		if got, err := pack.Name(text); err == nil {
			t.Errorf("Name(%q) = %q, want an error", text, got)
		}
	}
}

func TestParseFile(t *testing.T) {
	if got, err := pack.ParseFile("./a:/etc/a"); err != nil || got != (pack.File{Host: "./a", Guest: "/etc/a"}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "a", "a:b", ":/a", "a:/", "a:/x/.."} {
		if got, err := pack.ParseFile(text); err == nil {
			t.Errorf("ParseFile(%q) = %v, want an error", text, got)
		}
	}
}

// CRI identifies an image by its configuration's digest. Packed and adapted images therefore have different
// configurations for different modules, and for different names of the same module.
func TestConfigDependsOnTheLayers(t *testing.T) {
	modules := []string{write(t, "app.wasm", module), write(t, "app.wasm", module+"\x00\x01\x00"), write(t, "other.wasm", module)}
	tool := []string{"/tool"} // the entry point of all
	seen := map[digest.Digest]string{}
	add := func(what string, config digest.Digest) {
		t.Helper()
		if other, ok := seen[config]; ok {
			t.Errorf("%s has the configuration of %s", what, other)
		}
		seen[config] = what
	}
	for name, entry := range map[string][]string{"layer": tool, "runwasi": tool, "oras": nil, "wasm-to-oci": nil} {
		for _, path := range modules {
			m := readBack(t, pack1(t, pack.Options{Modules: []string{path}, Format: format(t, name), Entrypoint: entry})).manifest()
			add(name+" of "+path, m.Config.Digest)
			if name != "oras" {
				continue
			}
			adapted, err := pack.Adapt(t.Context(), m, nil, pack.AdaptOptions{Entrypoint: tool})
			if err != nil {
				t.Fatal(err)
			}
			for _, blob := range adapted.Blobs {
				if blob.MediaType == ocispec.MediaTypeImageConfig {
					add("what is adapted of "+path, blob.Digest)
				}
			}
		}
	}
}
