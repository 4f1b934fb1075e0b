package executor

import (
	"io"
	"os"
	"os/exec"
	"syscall"
)

// skipCopy is the variable by which a runtime says that no container of the pod needs the real
// argoexec.
const skipCopy = "CONTAINERD_SHIM_WASM_NO_ARGOEXEC"

// init prepares the volumes for the other containers.
func (e *executor) init() error {
	t, err := parseTemplate(e.template)
	if err != nil {
		return unknownError{err}
	}
	syscall.Umask(0) // containers of other users write to what is made here
	if err := e.stage(t); err != nil {
		e.addError(err)
	}
	return e.firstError()
}

func (e *executor) stage(t *template) error {
	argo, err := openVolume(varRunArgo, "argoexec", false)
	if err != nil {
		return err
	}
	defer argo.close()
	if os.Getenv(skipCopy) != "1" {
		if err := copyArgoexec(argo); err != nil {
			return err
		}
	}
	// Upstream decodes the template and encodes it again. The controller has encoded the variable
	// from the same structure, and every reader decodes it into that: they read the same from both.
	if err := argo.replaceWith("template", 0o444, e.template); err != nil {
		return err
	}
	if t.Script == nil {
		return nil
	}
	e.log.Info("Loading script source", "path", staging+"/script")
	volume, err := openVolume(staging, "script", false)
	if err != nil {
		return err
	}
	defer volume.close()
	return volume.replaceWith("script", 0o755, []byte(t.Script.Source))
}

// copyArgoexec copies the image's argoexec to where the main containers start it.
func copyArgoexec(argo *volume) error {
	name, err := exec.LookPath("argoexec")
	if err != nil {
		return err
	}
	source, err := os.Open(name)
	if err != nil {
		return err
	}
	defer source.Close()
	return argo.replace("argoexec", 0o555, func(w io.Writer) error {
		_, err := io.Copy(w, source)
		return err
	})
}
