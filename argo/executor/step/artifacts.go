package step

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
)

// saveOutputs uploads the output artifacts and the logs that are archived. Those that were uploaded, and no others, are
// reported.
func (s *step) saveOutputs(ctx context.Context) error {
	saved, err := s.saveArtifacts(ctx)
	s.fail(err)
	saved = append(saved, s.saveLogs(ctx)...)
	delete(s.template.Outputs, "artifacts")
	if len(saved) == 0 {
		return nil
	}
	s.template.Outputs["artifacts"], err = json.Marshal(saved)
	return err
}

// saveArtifacts uploads the output artifacts and returns those that were uploaded. The error has the texts of all.
func (s *step) saveArtifacts(ctx context.Context) ([]executor.Artifact, error) {
	var saved []executor.Artifact
	var failed strings.Builder
	for _, a := range s.template.OutputArtifacts {
		err := s.saveArtifact(ctx, &a)
		switch {
		case err == nil:
			saved = append(saved, a)
		case a.Optional && errors.As(err, new(missing)):
			s.Log.Warn("leave out an optional artifact", "name", a.Name, "path", a.Path, "error", err)
		default:
			failed.WriteString(err.Error() + "; ")
		}
	}
	if failed.Len() > 0 {
		return saved, errors.New(failed.String())
	}
	return saved, nil
}

// missing is the error of an artifact that the main container has not made.
type missing struct{ message string }

func (m missing) Error() string { return m.message }

func (s *step) saveArtifact(ctx context.Context, a *executor.Artifact) error {
	s.Log.Info("save artifact", "name", a.Name, "path", a.Path)
	o, err := s.collect(ctx, a)
	if err != nil {
		return err
	}
	defer o.close()
	return s.upload(ctx, a, o.name, o.file)
}

// upload uploads a file or a folder. An artifact without a key gets one below the template's archive.
func (s *step) upload(ctx context.Context, a *executor.Artifact, name string, f *os.File) error {
	if !a.HasKey() {
		at, err := a.Below(s.template.Archive, name)
		if err != nil {
			return err
		}
		a.Location = at
	}
	store, err := s.openStore(a.Location)
	if err != nil {
		return err
	}
	return store.Save(ctx, f)
}

// saveLogs uploads what the main containers have written, if it is to be archived, and returns what was uploaded.
func (s *step) saveLogs(ctx context.Context) []executor.Artifact {
	if !s.template.ArchivesLogs() {
		return nil
	}
	var saved []executor.Artifact
	for _, container := range s.template.MainContainers() {
		a := executor.Artifact{Name: container + "-logs"}
		if err := s.saveLog(ctx, &a, container); err != nil {
			s.fail(err)
			continue
		}
		saved = append(saved, a)
	}
	return saved
}

func (s *step) saveLog(ctx context.Context, a *executor.Artifact, container string) error {
	f, err := s.openOutput("ctr/" + container + "/combined")
	if err != nil {
		return err
	}
	name := container + ".log"
	if f, err = renamed(f, name); err != nil {
		return err
	}
	defer f.Close()
	return s.upload(ctx, a, name, f)
}

// output is a file or a folder that becomes an artifact.
type output struct {
	name string // the last part of its key
	file *os.File
	done func() // removes what was made for it
}

func (o output) close() {
	o.file.Close()
	if o.done != nil {
		o.done()
	}
}

// collect finds the output of the main container, and packs or unpacks it (upstream's stageArchiveFile).
func (s *step) collect(ctx context.Context, a *executor.Artifact) (output, error) {
	switch {
	case s.template.Shared(a.Path):
		return s.collectShared(a)
	case a.Archive == nil || a.Archive.Tar != nil:
		f, err := s.openTarball(a)
		if err != nil {
			return output{}, err
		}
		// Upstream uploads a copy, and names that in its errors.
		name := a.Name + ".tgz"
		f, err = renamed(f, scratchDir+"/"+name)
		return output{name: name, file: f}, err
	}
	return s.collectUnpacked(ctx, a)
}

// openTarball opens the tarball that the main container's emissary has left.
func (s *step) openTarball(a *executor.Artifact) (*os.File, error) {
	f, err := s.openOutput("outputs/artifacts" + strings.TrimSuffix(a.Path, "/") + ".tgz")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing{err.Error()}
	}
	return f, err
}

// openOutput opens a regular file of the volume.
func (s *step) openOutput(name string) (*os.File, error) {
	f, err := s.volume.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	_, err = regular(f)
	return closeUnless(f, err)
}

// collectShared takes an output from a volume that the main container shares with this one.
func (s *step) collectShared(a *executor.Artifact) (output, error) {
	archive := a.Archive
	if archive == nil {
		archive = &executor.ArchiveStrategy{Tar: &executor.TarStrategy{}}
	}
	from, err := s.openShared(a.Path)
	if errors.Is(err, fs.ErrNotExist) {
		if archive.None != nil {
			return output{}, missing{a.Path + " no such file or directory"}
		}
		return output{}, missing{err.Error()}
	}
	if err != nil {
		return output{}, err
	}
	if archive.None != nil {
		return output{name: path.Base(a.Path), file: from}, nil
	}
	defer from.Close()
	if archive.Zip != nil {
		return s.pack(a.Name+".zip", func(w io.Writer) error { return s.zipShared(w, a.Path, from) })
	}
	return s.pack(a.Name+".tgz", func(w io.Writer) error { return s.writeTarball(w, a.Path, archive.Tar) })
}

// collectUnpacked unpacks the tarball that the emissary has left.
func (s *step) collectUnpacked(ctx context.Context, a *executor.Artifact) (output, error) {
	tarball, err := s.openTarball(a)
	if err != nil {
		return output{}, err
	}
	defer tarball.Close()
	dir, done, err := s.scratch()
	if err != nil {
		return output{}, err
	}
	from, err := unpacked(ctx, tarball, dir, a)
	if err != nil {
		done()
		return output{}, err
	}
	if a.Archive.Zip == nil {
		return output{name: path.Base(a.Path), file: from, done: done}, nil
	}
	defer done()
	defer from.Close()
	if path.Base(from.Name()) != a.Name {
		// Upstream looks for a single file by its old name. The step fails with it, and so it does here.
		return output{}, missing{"stat " + scratchDir + "/" + a.Name + ": no such file or directory"}
	}
	return s.pack(a.Name+".zip", func(w io.Writer) error { return writeZip(w, from) })
}

// unpacked unpacks a tarball in a folder and opens what was in it. The name of the open file is what upstream has it by: a
// file keeps its own name, from which its media type follows.
func unpacked(ctx context.Context, tarball *os.File, dir *os.Root, a *executor.Artifact) (*os.File, error) {
	if err := expand(ctx, tarball, untar, dir, a.Name+".tmpdir", a.Name); err != nil {
		return nil, err
	}
	f, err := dir.OpenFile(a.Name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	name := a.Name
	if !info.IsDir() {
		name = path.Base(a.Path)
	}
	return renamed(f, scratchDir+"/"+name)
}

// pack returns a file that write writes.
func (s *step) pack(name string, write func(io.Writer) error) (output, error) {
	dir, done, err := s.scratch()
	if err != nil {
		return output{}, err
	}
	f, err := dir.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		done()
		return output{}, err
	}
	o := output{name: name, file: f, done: done}
	if err = write(f); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		o.close()
	}
	return o, err
}

// scratchDir is the folder of outputs that are packed or unpacked (upstream's tempOutArtDir).
const scratchDir = "/tmp/argo/outputs/artifacts"

// scratch returns a new empty folder, and what removes it.
func (s *step) scratch() (*os.Root, func(), error) {
	root, err := os.OpenRoot(s.Root + "/")
	if err != nil {
		return nil, nil, err
	}
	name := scratchDir[1:] + "/" + rand.Text()
	err = root.MkdirAll(name, 0o777)
	if err != nil {
		root.Close()
		return nil, nil, err
	}
	dir, err := root.OpenRoot(name)
	done := func() {
		if err := root.RemoveAll(name); err != nil {
			s.Log.Warn("remove a copy of an output: it takes space until the container ends", "error", err)
		}
		root.Close()
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return dir, func() { dir.Close(); done() }, nil
}
