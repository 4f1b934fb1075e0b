package step

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
)

// staging is the volume with the source of a script template, as the file script (upstream's
// common.ExecutorScriptSourcePath).
const staging = "/argo/staging"

// Init does the work of argoexec init and returns its exit code. The end of ctx is the end of the container.
func Init(ctx context.Context, p Pod) int {
	text := p.env("ARGO_TEMPLATE")
	t, err := executor.ParseTemplate([]byte(text))
	if err != nil {
		return p.cannotBegin(err)
	}
	s := &step{Pod: p, volume: volume{p.Root + argo.VolumePath}, template: t}
	err = s.stage(text)
	if err == nil {
		err = s.loadArtifacts(ctx)
	}
	s.fail(err)
	return s.end(s.failed())
}

// stage makes the files that the other containers need. The controller has encoded the template as upstream's init
// would, so it is written as it is.
func (s *step) stage(text string) error {
	unix.Umask(0) // the other containers may have other users
	if err := s.volume.write("template", text, 0o444); err != nil {
		return err
	}
	if s.template.Script == nil {
		return nil
	}
	s.Log.Info("write the script", "path", staging+"/script")
	return volume{s.Root + staging}.write("script", s.template.Script.Source, 0o755)
}
