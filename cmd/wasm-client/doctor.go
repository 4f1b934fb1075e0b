package main

import (
	"context"
	"errors"

	"github.com/wasmshim/containerd-shim-wasm/doctor"
	"github.com/wasmshim/containerd-shim-wasm/internal/endpoint"
)

// checkNode prints the results of all checks of a node, and fails if one of them fails.
func checkNode(ctx context.Context, args []string, stdio stdio) error {
	set := newFlags("doctor", "[--address SOCKET] [--json] [--no-test-run]", stdio)
	var o doctor.Options
	endpoint.AddressFlag(set, &o.Address)
	asJSON := set.Bool("json", false, "print for machines")
	set.BoolVar(&o.NoTrial, "no-test-run", false, "do not run a container")
	if err := parse(set, args, 0, 0); err != nil {
		return err
	}
	results := doctor.Run(ctx, o)
	show := doctor.Print
	if *asJSON {
		show = doctor.PrintJSON
	}
	if err := show(stdio.out, results); err != nil {
		return err
	}
	if !doctor.Healthy(results) {
		return errors.New("this node is not as it should be: see the rows that say wrong")
	}
	return nil
}
