package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/module"
)

// loadSpec reads a bundle's specification. unknown names the first field that this build does not know. A
// Wasm container must then be refused, because the field could not be honoured; a native one is the stock
// shim's concern.
func loadSpec(bundle string) (spec *specs.Spec, unknown error, err error) {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil, nil, fmt.Errorf("read specification: %w", err)
	}
	spec = &specs.Spec{}
	if unknown = decodeStrict(data, spec); unknown == nil {
		return spec, nil, nil
	}
	spec = &specs.Spec{}
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, nil, fmt.Errorf("decode specification %s: %w", filepath.Join(bundle, "config.json"), err)
	}
	return spec, unknown, nil
}

func decodeStrict(data []byte, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		return fmt.Errorf("specification: %s: this version cannot honour it", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// Annotations of containerd's CRI plugin (containerd's pkg/cri/annotations).
const (
	sandboxIDAnnotation        = "io.kubernetes.cri.sandbox-id"        // groups the containers of a pod
	sandboxNamespaceAnnotation = "io.kubernetes.cri.sandbox-namespace" // Kubernetes' namespace of a pod
	sandboxNameAnnotation      = "io.kubernetes.cri.sandbox-name"
	containerTypeAnnotation    = "io.kubernetes.cri.container-type" // marks the pod's pause container
	containerNameAnnotation    = "io.kubernetes.cri.container-name"
	imageNameAnnotation        = "io.kubernetes.cri.image-name"
)

func isNative(err error) bool { return errors.Is(err, module.ErrNative) }

// cgroupsPath returns the specification's cgroups path, empty if it has none.
func cgroupsPath(spec *specs.Spec) string {
	if spec.Linux == nil {
		return ""
	}
	return spec.Linux.CgroupsPath
}
