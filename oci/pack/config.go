package pack

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wasmshim/containerd-shim-wasm/oci"
	"github.com/wasmshim/containerd-shim-wasm/wasm/world"
)

// systems maps modules and components to their operating systems in the CNCF's layout.
var systems = map[oci.Content]string{oci.WasmModule: "wasip1", oci.WasmComponent: "wasip2"}

// cncfConfig is the config of the CNCF's layout
// (https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/), which requires a time.
type cncfConfig struct {
	Created      string          `json:"created"`
	Architecture string          `json:"architecture"`
	OS           string          `json:"os"`
	LayerDigests []digest.Digest `json:"layerDigests"`
	Component    *cncfComponent  `json:"component,omitempty"` // required for a component
}

type cncfComponent struct {
	Exports []string `json:"exports"`
	Imports []string `json:"imports"`
	Target  string   `json:"target,omitempty"` // a world
}

// checkCNCF makes sure that an artifact conforms to the CNCF's layout.
func (j *job) checkCNCF() error {
	if len(j.modules) > 1 {
		return errors.New("it holds exactly one module: use the format layer")
	}
	m := j.modules[0]
	for _, p := range j.Platforms {
		if strings.HasPrefix(p, "wasip") && p != systems[m.content]+"/wasm" {
			return fmt.Errorf("%s is %s, whose platform is %s/wasm there, not %s", m.path, m.content, systems[m.content], p)
		}
	}
	if m.content == oci.WasmComponent {
		return j.readWorld(m.path)
	}
	return nil
}

// readWorld reads the imports and exports that a component's config has to list.
func (j *job) readWorld(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	w, err := world.Read(file)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	j.world = &w
	return nil
}

// platform returns the platform of an image if none is given.
func (j *job) platform() string {
	if j.Format.config == oci.MediaTypeWasmConfigV0 {
		return systems[j.modules[0].content] + "/wasm"
	}
	return j.Format.platform
}

// wasmConfig returns the config of a module, or of a component with the world w.
func wasmConfig(p ocispec.Platform, layers []ocispec.Descriptor, w *world.World) cncfConfig {
	config := cncfConfig{Created: "1970-01-01T00:00:00Z", Architecture: p.Architecture, OS: p.OS}
	for _, layer := range layers {
		config.LayerDigests = append(config.LayerDigests, layer.Digest)
	}
	if w != nil {
		config.Component = &cncfComponent{Exports: world.Names(w.Exports), Imports: world.Names(w.Imports), Target: w.Target()}
	}
	return config
}

// labels returns labels for a configuration that does not otherwise depend on its layers.
func labels(layers []ocispec.Descriptor) map[string]string {
	return map[string]string{oci.LayersLabel: oci.LayersID(layers).String()}
}
