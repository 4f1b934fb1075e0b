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
)

// loadSpec reads a bundle's specification. unknown names the first field that
// this build does not know: a Wasm container must be refused then, because the
// field could not be honoured; a native one is not ours to judge.
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

// sandboxIDAnnotation groups the containers of a pod; containerd's CRI plugin
// sets it. containerTypeAnnotation marks the pod's pause container.
const (
	sandboxIDAnnotation     = "io.kubernetes.cri.sandbox-id"
	containerTypeAnnotation = "io.kubernetes.cri.container-type"
)

// entryPoint is what a container's command names: a file of the container and,
// in a Wasm module or component, the function to call.
type entryPoint struct {
	file, function string
}

const wasmSuffix = ".wasm"

// parseEntryPoint splits "module.wasm#function". That of a component may be
// "component.wasm#interface#function".
func parseEntryPoint(arg string) entryPoint {
	if i := strings.LastIndex(arg, wasmSuffix+"#"); i >= 0 {
		file := arg[:i+len(wasmSuffix)]
		return entryPoint{file: file, function: arg[len(file)+1:]}
	}
	return entryPoint{file: arg, function: "_start"}
}

// meantAsWasm reports whether the name alone says that the file is to be Wasm.
func (e entryPoint) meantAsWasm() bool { return strings.HasSuffix(e.file, wasmSuffix) }

// errNative says that a container is not Wasm.
var errNative = errors.New("native container")

func isNative(err error) bool { return errors.Is(err, errNative) }
