// Package inspect reports which part of an image the shim would run and why, or why it would run nothing. It
// reads the image from containerd, a registry or a file. It never runs, compiles or changes anything.
package inspect

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/entrypoint"
	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/oci/blob"
)

// Report is the report on an image.
type Report struct {
	Name      string        `json:"name"`
	Digest    digest.Digest `json:"digest"` // of the manifest or index that the name refers to
	MediaType string        `json:"mediaType"`
	Images    []Image       `json:"images"` // a single image, or those of the index
}

// Image is the report on one manifest.
type Image struct {
	Digest       digest.Digest     `json:"digest"`
	MediaType    string            `json:"mediaType"`
	Platform     string            `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Config       string            `json:"config,omitempty"` // media type
	Annotations  map[string]string `json:"annotations,omitempty"`
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Args         []string          `json:"args,omitempty"`
	Env          []string          `json:"env,omitempty"`
	Layers       []Layer           `json:"layers,omitempty"`

	Runs         string `json:"runs,omitempty"`    // what the shim runs, in words; "" if nothing
	Problem      string `json:"problem,omitempty"` // why it runs nothing
	NeedsCommand bool   `json:"needsCommand"`      // the image has no command of its own
	Command      string `json:"command,omitempty"` // a command to give it, if it needs one
	Ctr          string `json:"ctr"`               // whether ctr runs it, and under which conditions
	CRI          string `json:"cri"`               // the same for a kubelet
}

// Layer is the report on a layer.
type Layer struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"` // in bytes
	Title     string        `json:"title,omitempty"`
	Holds     string        `json:"holds"` // in words
}

// Node is the part of a node's configuration that decides what runs.
type Node struct {
	MaxModuleSize int64    // in bytes, unpacked
	Precompiled   []string // digests of machine code that may run
}

// maxImages is how many images of an index are read at most.
const maxImages = 256

// Inspect reports on an image in a source, for a node. It fails only if the root cannot be read; the report
// contains the problems of an image.
func Inspect(ctx context.Context, source blob.Source, image Named, node Node) (Report, error) {
	r := Report{Name: image.Name, Digest: image.Root.Digest, MediaType: image.Root.MediaType}
	if !oci.IsIndex(image.Root.MediaType) {
		r.Images = []Image{inspect(ctx, look{source: source, node: node}, image.Root, false)}
		return r, ctx.Err()
	}
	data, err := blob.Read(ctx, source, image.Root, oci.MaxManifest)
	if err != nil {
		return Report{}, fmt.Errorf("image %s: index: %w", image.Name, err)
	}
	index, err := oci.ParseIndex(data)
	if err != nil {
		return Report{}, fmt.Errorf("image %s: %w", image.Name, err)
	}
	for _, d := range index.Manifests {
		if oci.IsAttestation(d) {
			continue
		}
		if len(r.Images) == maxImages {
			return Report{}, fmt.Errorf("image %s: its index has more than %d images", image.Name, maxImages)
		}
		r.Images = append(r.Images, inspect(ctx, look{source: source, node: node}, d, true))
	}
	return r, ctx.Err()
}

// look is the inspection of one manifest.
type look struct {
	source   blob.Source
	node     Node
	manifest ocispec.Manifest
	config   ocispec.Image
	files    files
	report   *Image

	unpacking *blob.Unpacking
	unpacked  *os.Root // the image's files, if containerd has discarded their layers
}

func inspect(ctx context.Context, l look, d ocispec.Descriptor, indexed bool) Image {
	report := Image{Digest: d.Digest, MediaType: d.MediaType}
	if d.Platform != nil {
		report.Platform = oci.FormatPlatform(*d.Platform)
	}
	l.unpacking, l.report = blob.NewUnpacking(), &report
	done, err := l.read(ctx, d)
	if err == nil {
		l.judge(ctx, indexed)
		err = done()
	}
	if err == nil {
		return report
	}
	report.Problem, report.Ctr, report.CRI = err.Error(), "no", "no"
	if errors.Is(err, blob.ErrMissing) && indexed {
		report.Problem = "it was not pulled, because its platform was not asked for"
	}
	return report
}

// read reads the manifest, its config and its layers. done releases the image's unpacked files.
func (l *look) read(ctx context.Context, d ocispec.Descriptor) (done func() error, err error) {
	if err := l.readManifest(ctx, d); err != nil {
		return nil, err
	}
	if err := l.readConfig(ctx); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	discarded := false
	for n, layer := range l.manifest.Layers {
		holds, err := l.layer(ctx, n, layer)
		if errors.Is(err, blob.ErrMissing) && oci.IsFiles(layer.MediaType) {
			discarded, holds, err = true, "files, not here any more", nil
		}
		if err != nil {
			return nil, fmt.Errorf("layer %d (%s): %w", n, layer.Digest, err)
		}
		l.report.Layers = append(l.report.Layers, Layer{layer.MediaType, layer.Digest, layer.Size, layer.Annotations[ocispec.AnnotationTitle], holds})
	}
	if !discarded {
		return func() error { return nil }, nil
	}
	if done, err = l.lookUnpacked(ctx); err != nil {
		return nil, fmt.Errorf("a layer of files is missing, and so are its files unpacked: %w", err)
	}
	return done, nil
}

func (l *look) readManifest(ctx context.Context, d ocispec.Descriptor) error {
	if !oci.IsManifest(d.MediaType) {
		return fmt.Errorf("%q is not the media type of an image's manifest", d.MediaType)
	}
	data, err := blob.Read(ctx, l.source, d, oci.MaxManifest)
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if l.manifest, err = oci.ParseManifest(data); err != nil {
		return err
	}
	r := l.report
	r.Config, r.ArtifactType, r.Annotations = l.manifest.Config.MediaType, l.manifest.ArtifactType, l.manifest.Annotations
	return nil
}

func (l *look) readConfig(ctx context.Context) error {
	d := l.manifest.Config
	if !oci.IsImageConfig(d.MediaType) && !oci.IsWasmConfig(d.MediaType) {
		return nil
	}
	data, err := blob.Read(ctx, l.source, d, oci.MaxConfig)
	if err != nil {
		return err
	}
	parsed, err := oci.ParseConfig(d.MediaType, data)
	if err != nil {
		return err
	}
	if l.report.Platform == "" {
		l.report.Platform = oci.FormatPlatform(parsed.Platform)
	}
	if !oci.IsImageConfig(d.MediaType) {
		return nil
	}
	l.config, err = parseImage(data)
	l.report.Entrypoint, l.report.Args, l.report.Env = l.config.Config.Entrypoint, l.config.Config.Cmd, l.config.Config.Env
	return err
}

// layer describes the content of a layer.
func (l *look) layer(ctx context.Context, n int, d ocispec.Descriptor) (string, error) {
	if oci.IsFiles(d.MediaType) {
		return l.layerOfFiles(ctx, n, d)
	}
	head, err := l.head(ctx, d, true)
	return string(oci.ContentOf(head)), err
}

func (l *look) layerOfFiles(ctx context.Context, n int, d ocispec.Descriptor) (string, error) {
	layer, err := l.unpacking.Open(ctx, l.source, d)
	if err != nil {
		return "", err
	}
	defer layer.Close()
	entries, err := l.files.add(tar.NewReader(layer), n)
	return fmt.Sprintf("files (%d)", entries), err
}

// head returns the first bytes of a layer. With verify, it also reads and verifies the whole layer.
func (l *look) head(ctx context.Context, d ocispec.Descriptor, verify bool) ([]byte, error) {
	reader, err := l.source.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	digester := d.Digest.Algorithm().Digester()
	content := io.TeeReader(io.LimitReader(reader, d.Size+1), digester.Hash())
	head := make([]byte, oci.HeadSize)
	n, err := io.ReadFull(content, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	if !verify {
		return head[:n], nil
	}
	rest, err := io.Copy(io.Discard, content)
	if err != nil {
		return nil, err
	}
	if size := int64(n) + rest; size != d.Size || digester.Digest() != d.Digest {
		return nil, fmt.Errorf("it has another content than its digest says (%d bytes, the manifest says %d): remove the image and pull or pack it again", size, d.Size)
	}
	return head[:n], nil
}

// judge fills in what the shim, ctr and a kubelet would do with the image.
func (l *look) judge(ctx context.Context, indexed bool) {
	r := l.report
	command := slices.Concat(l.config.Config.Entrypoint, l.config.Config.Cmd)
	// containerd treats an empty entry point, such as runwasi's, as none.
	r.NeedsCommand = len(command) == 0 || command[0] == ""
	word := ""
	if !r.NeedsCommand {
		word = command[0]
	}
	runs, err := l.runs(ctx, word)
	if err == nil {
		err = l.unpacks()
	}
	if err != nil {
		r.Problem, r.Ctr, r.CRI = err.Error(), "no", "no"
		return
	}
	r.Runs = runs
	r.Ctr, r.CRI = l.ctr(indexed), l.cri(indexed)
}

// runs describes what the first word of the image's own command leads to: a file first, then a layer.
func (l *look) runs(ctx context.Context, word string) (string, error) {
	modules := oci.Modules(l.manifest)
	if word == "" {
		return l.unnamed(ctx, modules)
	}
	point := entrypoint.Parse(word)
	if at, found, ok := l.files.look(point.Paths(l.config.Config.WorkingDir, l.config.Config.Env)); ok {
		return l.runsFile(ctx, at, found, point)
	}
	chosen, err := oci.Found{Image: l.report.Digest.String(), Entry: word, Modules: modules}.Select(point)
	if local := point.Local(l.config.Config.WorkingDir); err != nil && local != "" {
		if at, found, ok := l.files.look([]string{local}); ok {
			return l.runsFile(ctx, at, found, point)
		}
	}
	switch {
	case errors.Is(err, oci.ErrNoModule):
		return "", fmt.Errorf("its entry point %s is no file of the image, and no layer is WebAssembly%s", word, l.hint())
	case err != nil:
		return "", err
	}
	return l.runsLayer(ctx, chosen, point.Function, "the entry point "+word+" is no file")
}

// hint names modules of the image that could be run instead.
func (l *look) hint() string {
	if found := l.files.modules(); len(found) > 0 {
		return "; give one of its modules as the command: " + strings.Join(found[:min(10, len(found))], ", ")
	}
	return ""
}

// unnamed describes what runs in an image that needs a command.
func (l *look) unnamed(ctx context.Context, modules []oci.Module) (string, error) {
	found := l.files.modules()
	switch {
	case len(modules) == 1:
		l.report.Command = "/app.wasm"
		if modules[0].Name != "" {
			l.report.Command = modules[0].Name
		}
		return l.runsLayer(ctx, modules[0], entrypoint.Start, "the command "+l.report.Command+" means it")
	case len(modules) > 1:
		_, err := oci.Found{Image: l.report.Digest.String(), Modules: modules}.Select(entrypoint.Point{})
		return "", err
	case len(found) == 0:
		return "", errors.New("it has no entry point, no layer that is WebAssembly and no file that is: there is nothing to run")
	}
	l.report.Command = found[0]
	return "one of its files that are WebAssembly, which the command names: " + strings.Join(found[:min(10, len(found))], ", "), nil
}

func (l *look) runsFile(ctx context.Context, at string, found file, named entrypoint.Point) (string, error) {
	where := fmt.Sprintf("the file %s of layer %d", at, found.layer)
	if found.layer == unpackedLayer {
		where = fmt.Sprintf("the unpacked file %s", at)
	}
	switch {
	case found.isWasm() && found.size > l.node.MaxModuleSize:
		return "", l.tooLarge(where)
	case found.content == oci.WasmModule:
		return where + ", " + string(found.content), nil
	case found.content == oci.WasmComponent:
		w, err := l.worldOfFile(ctx, found)
		if err != nil {
			return "", fmt.Errorf("%s: %w", where, err)
		}
		runs, err := runsFunction(where, named.Function, w)
		return where + ", " + runs, err
	case found.content == oci.Precompiled:
		return where + ", " + string(found.content) + ", if the node's configuration lists its digest under precompiled", nil
	case named.IsWasm():
		return "", fmt.Errorf("%s is not a WebAssembly module but %s", where, found.content)
	}
	return where + ", " + string(found.content) + ": no WebAssembly, so the stock runc shim runs it", nil
}

// unpacks checks that containerd can unpack the image: containerd requires a diff id for each layer of files
// and none for others (its client's rootfs.go).
func (l *look) unpacks() error {
	layers := 0
	for _, d := range l.manifest.Layers {
		if oci.IsFiles(d.MediaType) {
			layers++
		}
	}
	if got := len(l.config.RootFS.DiffIDs); got != layers {
		return fmt.Errorf("its config has %d diff_ids for %d layers of files, so containerd refuses it: pack it again", got, layers)
	}
	return nil
}

func (l *look) ctr(indexed bool) string {
	if !oci.IsImageConfig(l.manifest.Config.MediaType) {
		return "no: ctr refuses its config; \"image adapt\" makes an image of it that ctr takes"
	}
	return l.yes(indexed, "yes, if it is pulled and run with --platform "+l.report.Platform+" (from containerd 2.3 on, pulled with --local too)")
}

func (l *look) cri(indexed bool) string {
	return l.yes(indexed, "only by its digest, NAME@"+l.report.Digest.String()+": of an index a kubelet pulls "+platforms.Format(platforms.DefaultSpec())+" only")
}

// yes returns the conditions for running an image. asked is the condition for one that containerd does not
// choose from its index by itself.
func (l *look) yes(indexed bool, asked string) string {
	var conditions []string
	p, err := platforms.Parse(l.report.Platform)
	if indexed && (err != nil || !platforms.Default().Match(p)) {
		conditions = append(conditions, asked)
	} else {
		conditions = append(conditions, "yes")
	}
	if l.report.NeedsCommand {
		conditions = append(conditions, "with a command, as in "+l.report.Command)
	}
	return strings.Join(conditions, "; ")
}
