package worker

import (
	"errors"
	"fmt"
	"io"

	"github.com/wasmshim/containerd-shim-wasm/worker/component"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// componentGuest is a component under WASI 0.2.
type componentGuest struct {
	function string
	program  *component.Program
}

func loadComponent(order control.Run) (*componentGuest, error) {
	loaded, err := component.Load(order.Code)
	if err != nil {
		return nil, fmt.Errorf("load compiled component: %w", err)
	}
	world := component.World{Args: order.Args, Root: order.Root, MemoryLimit: order.MemoryLimit}
	world.EnvNames, world.EnvValues = environment(order)
	program, err := loaded.Link(world)
	if err != nil {
		return nil, err
	}
	return &componentGuest{function: order.Function, program: program}, nil
}

func (g *componentGuest) run(stderr io.Writer) int {
	err := g.program.Run(g.function)
	var exit *component.Exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Status
	}
	fmt.Fprintf(stderr, "error: %v\n", err)
	var trap *component.Trap
	if errors.As(err, &trap) {
		return trapCode
	}
	return startFailure
}
