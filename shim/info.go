package shim

import (
	"fmt"
	"io"

	"github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Info answers containerd's -info: it reads runtime options and writes what the runtime is (containerd's
// api/types/introspection.proto).
func Info(version string, in io.Reader, out io.Writer) error {
	data, err := io.ReadAll(io.LimitReader(in, maxBootstrap))
	if err != nil {
		return fmt.Errorf("read runtime options: %w", err)
	}
	features, err := runtimeFeatures()
	if err != nil {
		return err
	}
	info := &types.RuntimeInfo{Name: "io.containerd.wasm.v1", Version: &types.RuntimeVersion{Version: version}, Features: features}
	if len(data) > 0 {
		info.Options = &anypb.Any{}
		if err := proto.Unmarshal(data, info.Options); err != nil {
			return fmt.Errorf("decode runtime options: %w", err)
		}
	}
	answer, err := proto.Marshal(info)
	if err != nil {
		return fmt.Errorf("encode runtime info: %w", err)
	}
	_, err = out.Write(answer)
	return err
}
