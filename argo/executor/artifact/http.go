package artifact

import (
	"context"
	"errors"
	"os"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
)

// web is an artifact at a web address.
type web struct{ executor.HTTP }

func openHTTP(at executor.HTTP, _ Secrets) (*web, error) { return &web{at}, nil }

func (h *web) Load(context.Context, *os.Root, string) error { return errors.ErrUnsupported }

func (h *web) Save(context.Context, *os.File) error { return errors.ErrUnsupported }
