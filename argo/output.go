package argo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// saveOutputs copies the template's outputs into the volume, from where Argo's wait container
// takes them. Only the main container has outputs. wait itself reads those that lie in a
// volume of the pod. An output that does not exist may be optional; that is left to wait.
func (r *run) saveOutputs() error {
	if r.container != mainContainer {
		r.log.Info("no outputs are saved: this is not the main container")
		return nil
	}
	for _, parameter := range r.template.Outputs.Parameters {
		if parameter.ValueFrom == nil || parameter.ValueFrom.Path == "" {
			continue
		}
		if err := r.saveParameter(parameter.ValueFrom.Path); err != nil {
			return fmt.Errorf("save output parameter %s: %w", parameter.ValueFrom.Path, err)
		}
	}
	for _, artifact := range r.template.Outputs.Artifacts {
		if artifact.Path == "" {
			continue
		}
		if err := r.saveArtifact(artifact.Path); err != nil {
			return fmt.Errorf("save output artifact %s: %w", artifact.Path, err)
		}
	}
	return nil
}

func (r *run) saveParameter(name string) error {
	if r.template.onVolume(name) {
		r.log.Info("parameter is not saved: it lies on a volume", "path", name)
		return nil
	}
	src, err := r.root.openRegular(r.absolute(name), 0)
	if errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("parameter is not saved", "path", name, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer src.Close()
	r.log.Info("saving parameter", "path", name)
	return r.save("outputs/parameters", name, "", func(w io.Writer) error {
		_, err := io.Copy(w, src)
		return err
	})
}

func (r *run) saveArtifact(name string) error {
	if r.template.onVolume(name) {
		r.log.Info("artifact is not saved: it lies on a volume", "path", name)
		return nil
	}
	from := r.absolute(name)
	if _, err := r.root.stat(from, 0); errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("artifact is not saved", "path", name, "error", err)
		return nil
	}
	r.log.Info("saving artifact", "path", name)
	return r.save("outputs/artifacts", strings.TrimSuffix(name, "/"), ".tgz", func(w io.Writer) error {
		return writeArchive(w, r.root, from)
	})
}

// save writes a file of the volume, below dir, at the path that the output has in
// the container.
func (r *run) save(dir, name, suffix string, write func(io.Writer) error) error {
	to := path.Join(dir, name+suffix)
	if !strings.HasPrefix(to, dir+"/") {
		return fmt.Errorf("the path leads out of %s/%s", VolumePath, dir)
	}
	if err := r.volume.mkdirAll(path.Dir(to), 0o755); err != nil {
		return err
	}
	return r.volume.replace(to, 0o666, func(f *os.File) error { return write(f) })
}
