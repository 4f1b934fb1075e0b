package shim

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
	"github.com/wasmshim/containerd-shim-wasm/shim/remote"
)

// listArtifacts lists the artifacts that are served to containers, and what was done for them.
func (s *service) listArtifacts(context.Context, *emptypb.Empty) (*anypb.Any, error) {
	s.mu.Lock()
	var all []*container
	for _, served := range s.containers {
		if c, ok := served.(*container); ok {
			all = append(all, c)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *container) int { return cmp.Compare(a.id, b.id) })
	list := []remote.Artifacts{}
	for _, c := range all {
		if of, ok := c.artifactsServed(); ok {
			list = append(list, of)
		}
	}
	text, err := json.Marshal(list)
	return &anypb.Any{Value: text}, err
}

// artifactsOf returns a list that says whose artifacts are going to be in it.
func (c *container) artifactsOf() remote.Artifacts {
	return remote.Artifacts{
		Namespace: c.spec.Annotations[sandboxNamespaceAnnotation], Pod: c.spec.Annotations[sandboxNameAnnotation],
		Sandbox: c.spec.Annotations[sandboxIDAnnotation], Container: cmp.Or(c.spec.Annotations[containerNameAnnotation], c.id),
	}
}

// artifactsServed reports false for a container without artifacts.
func (c *container) artifactsServed() (remote.Artifacts, bool) {
	servers := []*process{c.served.Load()}
	if c.requested != nil {
		servers = append(servers, c.requested.server.Load())
	}
	of := c.artifactsOf()
	found := false
	for _, p := range servers {
		if p == nil {
			continue
		}
		found = true
		done, err := progress.Read(p.progress)
		if err != nil {
			of.Error = err.Error()
		}
		of.Artifacts = append(of.Artifacts, done...)
	}
	return of, found
}
