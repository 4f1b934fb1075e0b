package shim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"

	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/wasmshim/containerd-shim-wasm/shim/stock"
)

// featuresType is the name under which containerd knows features.Features (core/runtime/typeurl.go).
const featuresType = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"

// runtimeFeatures returns the features that pods may ask of the runtime. Native containers get the stock
// shim's features, so we return its answer without user namespaces, which a Wasm container cannot have: the
// kubelet then rejects such pods before it starts anything. Id-mapped mounts stay: Wasm containers refuse
// them by name, and containerd must know whether runc would ignore them.
func runtimeFeatures() (*anypb.Any, error) {
	f := stockFeatures()
	if f.Linux == nil {
		f.Linux = &features.Linux{}
	}
	f.Linux.Namespaces = slices.DeleteFunc(f.Linux.Namespaces, func(ns string) bool { return ns == "user" })
	// containerd assumes that these are set when it reads features.
	if f.Linux.MountExtensions == nil {
		f.Linux.MountExtensions = &features.MountExtensions{IDMap: &features.IDMap{Enabled: new(bool)}}
	}
	value, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode runtime features: %w", err)
	}
	return &anypb.Any{TypeUrl: featuresType, Value: value}, nil
}

// stockFeatures asks the stock shim, which asks runc. A shim that does not know the request (containerd 1.7)
// offers none.
func stockFeatures() features.Features {
	var f features.Features
	path, err := exec.LookPath(stock.Program)
	if err != nil {
		return f
	}
	cmd := exec.Command(path, "-info")
	cmd.Stdin = bytes.NewReader(nil)
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	if err != nil {
		return f
	}
	var info types.RuntimeInfo
	if proto.Unmarshal(output, &info) != nil || json.Unmarshal(info.Features.GetValue(), &f) != nil {
		return features.Features{}
	}
	return f
}
