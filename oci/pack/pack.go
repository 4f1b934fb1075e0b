package pack

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/wasm/world"
)

// Options are the input of Make. Only Modules is required.
type Options struct {
	Modules     []string // files; the first is the entry point by default
	Format      Format   // the first of [Formats] by default
	Platforms   []string // os/architecture[/variant]; several make an index with an image for each
	Entrypoint  []string
	Args        []string // of the entry point; a container's arguments replace them
	Env         []string // NAME=value
	Annotations map[string]string
	Files       []File
	MediaType   string // of Wasm layers: one of oci.WasmMediaTypes that fits their content
	Compression string // "", "gzip", "zstd", "zip", or "none"; layers of files are compressed with gzip by default
}

// Make makes an image. Its errors say which option is at fault. It reads the files before it returns; writing
// the image opens uncompressed modules again.
func Make(o Options) (*Image, error) {
	if o.Format.Name == "" {
		o.Format = formats[0]
	}
	j := &job{Options: o, image: &Image{}}
	if err := j.read(); err != nil {
		return nil, err
	}
	if err := j.check(); err != nil {
		return nil, fmt.Errorf("format %s: %w", o.Format.Name, err)
	}
	if err := j.make(); err != nil {
		return nil, err
	}
	return j.image, nil
}

// job is one call of Make.
type job struct {
	Options
	modules []module
	world   *world.World // of the component in the CNCF's layout
	image   *Image

	// The same for all platforms:
	layers  []ocispec.Descriptor
	diffIDs []digest.Digest
}

func (j *job) read() error {
	if len(j.Modules) == 0 {
		return errors.New("no module is given: name a .wasm file")
	}
	names := map[string]string{}
	for i, file := range j.Modules {
		name := ""
		if i == 0 {
			name = j.Format.file
		}
		m, err := openModule(file, name)
		if err != nil {
			return err
		}
		if other, ok := names[m.name]; ok {
			return fmt.Errorf("%s and %s would both be called %s in the image: rename one", other, file, m.name)
		}
		names[m.name] = file
		j.modules = append(j.modules, m)
	}
	return nil
}

func (j *job) check() error {
	for _, variable := range j.Env {
		if name, _, ok := strings.Cut(variable, "="); !ok || name == "" {
			return fmt.Errorf("environment variable %q is not of the form NAME=value", variable)
		}
	}
	if err := j.checkMediaType(); err != nil {
		return err
	}
	switch {
	case j.Format.carrier == inFiles && (j.Compression == "zip" || j.Compression == "zstd" && j.Format.files == dockerFiles):
		return fmt.Errorf("its layers cannot be compressed with %s", j.Compression)
	case !slices.Contains([]string{"", "none", "gzip", "zstd", "zip"}, j.Compression):
		return fmt.Errorf("unknown compression %q: give gzip, zstd, zip or none", j.Compression)
	}
	if j.Format.carrier == inArtifact {
		return j.checkArtifact()
	}
	if len(j.Entrypoint) == 0 && !j.Format.noEntry {
		j.Entrypoint = []string{"/" + j.modules[0].name}
	}
	if len(j.Entrypoint) == 0 {
		return nil
	}
	return j.checkEntry(j.Entrypoint[0])
}

func (j *job) checkMediaType() error {
	if j.Format.carrier == inFiles {
		if j.MediaType != "" {
			return errors.New("a media type can only be given where the module is a layer")
		}
		return nil
	}
	if j.MediaType != "" {
		if !slices.Contains(oci.WasmMediaTypes(), j.MediaType) {
			return fmt.Errorf("%q is not a media type of Wasm: give one of %s", j.MediaType, strings.Join(oci.WasmMediaTypes(), ", "))
		}
		j.Format.mediaType = j.MediaType
	}
	for _, m := range j.modules {
		if says, ok := binaries[j.Format.mediaType]; ok && says != m.content {
			return fmt.Errorf("%s is %s, and the media type %s is for %s: give %s", m.path, m.content, j.Format.mediaType, says, typeOf(m.content))
		}
	}
	return nil
}

func (j *job) checkArtifact() error {
	switch {
	case len(j.Entrypoint)+len(j.Args)+len(j.Env) > 0:
		return errors.New("its config has no place for an entry point, arguments or environment: use the format layer, or let who runs it give them")
	case len(j.Files) > 0:
		return errors.New("its config has no place for files: use the format layer")
	case len(j.Platforms) > 1:
		return errors.New("it is not made for several platforms: use the format layer")
	case len(j.Platforms) == 1 && j.Format.config != oci.MediaTypeWasmConfigV0:
		return errors.New("its config has no place for a platform: use the format artifact or layer")
	case j.Format.config == oci.MediaTypeWasmConfigV0:
		return j.checkCNCF()
	}
	return nil
}

// checkEntry makes sure that the entry point names a module of the image.
func (j *job) checkEntry(name string) error {
	file := entrypoint.Parse(name).File
	var names []string
	for _, m := range j.modules {
		// A name without a slash would be looked up in PATH.
		same := strings.Contains(file, "/") && path.Clean("/"+file) == "/"+m.name
		if j.Format.carrier == inLayer {
			same = same || path.Base(file) == m.name || len(j.modules) == 1
		}
		if same {
			return nil
		}
		names = append(names, "/"+m.name)
	}
	return fmt.Errorf("entry point %q is not one of the modules in the image: %s", name, strings.Join(names, ", "))
}

func (j *job) make() error {
	if err := j.makeFiles(); err != nil {
		return err
	}
	if j.Format.carrier != inFiles {
		for _, m := range j.modules {
			if err := j.makeWasm(m); err != nil {
				return err
			}
		}
	}
	platforms := j.Platforms
	if len(platforms) == 0 {
		platforms = []string{j.platform()}
	}
	var manifests []ocispec.Descriptor
	for _, text := range platforms {
		p, err := parsePlatform(text)
		if err != nil {
			return err
		}
		d, err := j.makeManifest(p)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(manifests, func(have ocispec.Descriptor) bool { return have.Digest == d.Digest }) {
			return fmt.Errorf("platform %s is given twice", text)
		}
		d.Platform = &p
		manifests = append(manifests, d)
	}
	if len(manifests) == 1 {
		j.image.Root = manifests[0]
		j.image.Root.Platform = nil
		return nil
	}
	return j.makeIndex(manifests)
}

// makeFiles makes the layer of files, if there are any files.
func (j *job) makeFiles() error {
	files := map[string]entry{}
	for _, f := range j.Files {
		info, err := os.Stat(f.Host)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a regular file", f.Host)
		}
		mode := int64(0o644)
		if info.Mode().Perm()&0o111 != 0 {
			mode = 0o755
		}
		at := strings.TrimPrefix(path.Clean("/"+f.Guest), "/")
		if _, ok := files[at]; ok {
			return fmt.Errorf("two files are to be /%s in the image", at)
		}
		files[at] = entry{f.Host, mode}
	}
	if j.Format.carrier == inFiles {
		for _, m := range j.modules {
			if _, ok := files[m.name]; ok {
				return fmt.Errorf("two files are to be /%s in the image", m.name)
			}
			files[m.name] = entry{m.path, 0o755}
		}
	}
	if len(files) == 0 {
		return nil
	}
	blob, diffID, err := filesLayer(j.Format.files, j.filesCompression(), files)
	if err != nil {
		return err
	}
	j.image.add(blob)
	j.layers, j.diffIDs = append(j.layers, blob.Descriptor), append(j.diffIDs, diffID)
	return nil
}

// filesCompression returns the compression of the layer of files. If there are Wasm layers, the option
// Compression applies to them only.
func (j *job) filesCompression() string {
	switch {
	case j.Format.carrier != inFiles, j.Compression == "":
		return "gzip"
	case j.Compression == "none":
		return ""
	}
	return j.Compression
}

func (j *job) makeWasm(m module) error {
	var blob Blob
	var err error
	mediaType := j.Format.mediaType
	if j.Compression == "" || j.Compression == "none" {
		blob, err = fileBlob(mediaType, m.path)
	} else {
		blob, err = compressedBlob(mediaType, j.Compression, m)
	}
	if err != nil {
		return err
	}
	j.image.add(blob)
	d := blob.Descriptor
	d.Annotations = map[string]string{ocispec.AnnotationTitle: m.name}
	j.layers = append(j.layers, d)
	return nil
}

func compressedBlob(mediaType, compression string, m module) (Blob, error) {
	content, err := os.ReadFile(m.path)
	if err != nil {
		return Blob{}, err
	}
	if content, err = compress(compression, m.name, content); err != nil {
		return Blob{}, fmt.Errorf("compress %s: %w", m.path, err)
	}
	return bytesBlob(mediaType+"+"+compression, content), nil
}

func (j *job) makeManifest(p ocispec.Platform) (ocispec.Descriptor, error) {
	config, err := j.image.addJSON(j.Format.config, j.config(p))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: j.Format.manifest, ArtifactType: j.Format.artifact,
		Config: config, Layers: j.layers, Annotations: j.annotations(),
	}
	if j.Format.noType {
		manifest.MediaType = ""
	}
	return j.image.addJSON(j.Format.manifest, manifest, append([]ocispec.Descriptor{config}, j.layers...)...)
}

// config returns the content of the manifest's config, in the form that its media type requires.
func (j *job) config(p ocispec.Platform) any {
	switch {
	case j.Format.config == oci.MediaTypeWasmConfigV0:
		return wasmConfig(p, j.layers, j.world)
	case j.Format.carrier == inArtifact:
		// The tools that these formats come from write {} for every module.
		return struct {
			Config ocispec.ImageConfig `json:"config"`
		}{ocispec.ImageConfig{Labels: labels(j.layers)}}
	}
	diffIDs := j.diffIDs
	if diffIDs == nil {
		diffIDs = []digest.Digest{} // null is not valid
	}
	config := ocispec.ImageConfig{Entrypoint: j.Entrypoint, Cmd: j.Args, Env: j.Env}
	if j.Format.carrier == inLayer {
		config.Labels = labels(j.layers)
	}
	return ocispec.Image{
		Platform: p,
		Config:   config,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: diffIDs},
	}
}

func (j *job) annotations() map[string]string {
	if len(j.Annotations)+len(j.Format.notes) == 0 {
		return nil
	}
	all := maps.Clone(j.Format.notes)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, j.Annotations)
	return all
}

func (j *job) makeIndex(manifests []ocispec.Descriptor) error {
	mediaType := ocispec.MediaTypeImageIndex
	if j.Format.manifest == dockerManifest {
		mediaType = "application/vnd.docker.distribution.manifest.list.v2+json"
	}
	root, err := j.image.addJSON(mediaType, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Manifests: manifests,
	}, manifests...)
	j.image.Root = root
	return err
}
