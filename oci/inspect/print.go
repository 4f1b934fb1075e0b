package inspect

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/text"
)

func parseImage(data []byte) (ocispec.Image, error) {
	var image ocispec.Image
	err := json.Unmarshal(data, &image)
	return image, err
}

// Print writes the report in human-readable form.
func (r Report) Print(w io.Writer) error {
	p := printer{w: w}
	p.line("", "image", r.Name)
	if len(r.Images) != 1 || r.Images[0].Digest != r.Digest {
		p.line("", "index", fmt.Sprintf("%s %s", r.Digest, r.MediaType))
	}
	for _, i := range r.Images {
		p.image(i)
	}
	return p.err
}

type printer struct {
	w   io.Writer
	err error
}

// line prints one field. Text from the image must not control the terminal.
func (p *printer) line(indent, what, value string) {
	if value == "" || p.err != nil {
		return
	}
	_, p.err = fmt.Fprintf(p.w, "%s%-13s %s\n", indent, what+":", text.Printable(value))
}

func (p *printer) image(i Image) {
	p.line("", "manifest", fmt.Sprintf("%s %s", i.Digest, i.MediaType))
	p.line("  ", "platform", i.Platform)
	p.line("  ", "artifact", i.ArtifactType)
	p.line("  ", "config", i.Config)
	for _, key := range slices.Sorted(maps.Keys(i.Annotations)) {
		p.line("  ", "annotation", key+"="+i.Annotations[key])
	}
	p.line("  ", "entry point", quoted(i.Entrypoint))
	p.line("  ", "arguments", quoted(i.Args))
	for _, variable := range i.Env {
		p.line("  ", "environment", variable)
	}
	for n, layer := range i.Layers {
		title := ""
		if layer.Title != "" {
			title = fmt.Sprintf(" %q", layer.Title)
		}
		p.line("  ", fmt.Sprintf("layer %d", n), fmt.Sprintf("%s%s %s, %d bytes: %s", layer.MediaType, title, layer.Digest, layer.Size, layer.Holds))
	}
	p.line("  ", "runs", i.Runs)
	p.line("  ", "runs nothing", i.Problem)
	p.line("  ", "ctr", i.Ctr)
	p.line("  ", "kubelet", i.CRI)
}

func quoted(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return fmt.Sprintf("%q", words)
}
