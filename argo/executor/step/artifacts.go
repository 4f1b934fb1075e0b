package step

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/argo/executor/artifact"
	"github.com/wasmshim/containerd-shim-wasm/internal/place"
)

// saving is the upload of one output artifact, or of a container's log.
type saving struct {
	artifact executor.Artifact
	name     string // the last part of its key, if the artifact has none, and the name of its archive
	log      string // the file of the log below the volume, "" for another artifact
	err      error
}

// atOnce is how many artifacts are carried at a time. Each may take a connection and a copy on disk.
const atOnce = 4

// saveOutputs uploads the output artifacts and the logs that are archived. Those that were uploaded, and no others, are
// reported, in the order of the template.
func (s *step) saveOutputs(ctx context.Context) error {
	all := s.savings()
	limit := atOnce
	if s.overlap(all) {
		limit = 1 // the last one counts
	}
	each(len(all), limit, func(i int) { all[i].err = s.save(ctx, &all[i]) })
	return s.noteSaved(all)
}

// each calls do for each number below n, for up to limit of them at a time.
func each(n, limit int, do func(i int)) {
	var running sync.WaitGroup
	free := make(chan struct{}, limit)
	for i := range n {
		free <- struct{}{}
		running.Go(func() {
			do(i)
			<-free
		})
	}
	running.Wait()
}

// savings lists what is to be uploaded.
func (s *step) savings() []saving {
	var all []saving
	for _, a := range s.template.OutputArtifacts {
		all = append(all, saving{artifact: a, name: s.keyName(&a)})
	}
	if s.template.ArchivesLogs() {
		for _, container := range s.template.MainContainers() {
			all = append(all, saving{artifact: executor.Artifact{Name: container + "-logs"}, name: container + ".log", log: "ctr/" + container + "/combined"})
		}
	}
	return all
}

// keyName returns the last part of the key of an artifact that has none.
func (s *step) keyName(a *executor.Artifact) string {
	archive := a.Archive
	switch {
	case archive == nil || archive.Tar != nil:
		return a.Name + ".tgz"
	case archive.Zip != nil:
		return a.Name + ".zip"
	case archive.None == nil && s.template.Shared(a.Path):
		return a.Name + ".tgz" // upstream's default depends on where the output is
	}
	return path.Base(a.Path)
}

// overlap reports whether two of them have the same key, or one of them a key below that of another.
func (s *step) overlap(all []saving) bool {
	var seen []string
	for _, o := range all {
		at := o.artifact.Location
		if !at.HasKey() {
			below, err := at.Below(s.template.Archive, o.name)
			if err != nil {
				continue // it will not be uploaded
			}
			at = below
		}
		key, _ := at.Key()
		seen = append(seen, key)
	}
	return nested(seen)
}

// nested reports whether two paths are the same, or one leads below another.
func nested(paths []string) bool {
	var seen []string
	for _, p := range paths {
		p = path.Clean("/" + p)
		if slices.ContainsFunc(seen, func(other string) bool { return place.Nested(p, other) }) {
			return true
		}
		seen = append(seen, p)
	}
	return false
}

// noteSaved makes what was uploaded part of the outputs, and records the errors. Those of all artifacts make one error.
func (s *step) noteSaved(all []saving) error {
	var saved []executor.Artifact
	var failed strings.Builder
	for _, o := range all {
		switch {
		case o.err == nil:
			saved = append(saved, o.artifact)
		case o.log != "":
		case o.artifact.Optional && errors.As(o.err, new(missing)):
			s.Log.Warn("leave out an optional artifact", "name", o.artifact.Name, "path", o.artifact.Path, "error", o.err)
		default:
			failed.WriteString(o.err.Error() + "; ")
		}
	}
	if failed.Len() > 0 {
		s.fail(errors.New(failed.String()))
	}
	for _, o := range all {
		if o.log != "" {
			s.fail(o.err)
		}
	}
	delete(s.template.Outputs, "artifacts")
	if len(saved) == 0 {
		return nil
	}
	var err error
	s.template.Outputs["artifacts"], err = json.Marshal(saved)
	return err
}

// missing is the error of an artifact that the main container has not made.
type missing struct{ message string }

func (m missing) Error() string { return m.message }

// save uploads a file or a folder. An artifact without a key gets one below the template's archive.
func (s *step) save(ctx context.Context, o *saving) error {
	a := &o.artifact
	s.Log.Info("save artifact", "name", a.Name, "path", a.Path)
	from, err := s.collect(ctx, o)
	if err != nil {
		return err
	}
	defer from.close()
	if !a.HasKey() {
		at, err := a.Below(s.template.Archive, o.name)
		if err != nil {
			return err
		}
		a.Location = at
	}
	store, err := s.openStore(a.Location)
	if err != nil {
		return err
	}
	if from.write != nil {
		return artifact.SaveWritten(ctx, store, from.file, from.write)
	}
	return store.Save(ctx, from.file)
}

// output is a file or a folder that becomes an artifact.
type output struct {
	file  *os.File
	write func(io.Writer) error // writes the file, if it is empty so far
	done  func()                // removes what was made for it
}

func (o output) close() {
	o.file.Close()
	if o.done != nil {
		o.done()
	}
}

// collect finds the output of the main container, and packs or unpacks it (upstream's stageArchiveFile).
func (s *step) collect(ctx context.Context, o *saving) (output, error) {
	a := &o.artifact
	var f *os.File
	var err error
	switch {
	case o.log != "":
		f, err = s.openOutput(o.log)
	case s.template.Shared(a.Path):
		return s.collectShared(o)
	case a.Archive == nil || a.Archive.Tar != nil:
		f, err = s.openTarball(a)
	default:
		return s.collectUnpacked(ctx, o)
	}
	if err != nil {
		return output{}, err
	}
	// Upstream uploads a copy. Its name is in errors, and decides on the media type.
	f, err = renamed(f, scratchDir+"/"+o.name)
	return output{file: f}, err
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
	_, err = artifact.Size(f)
	return closeUnless(f, err)
}

// collectShared takes an output from a volume that the main container shares with this one.
func (s *step) collectShared(o *saving) (output, error) {
	a := &o.artifact
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
	if failed := (*fs.PathError)(nil); archive.None != nil && a.HTTP == nil && errors.As(err, &failed) && failed.Op == "open" {
		return output{}, fmt.Errorf("failed to test if %s is a directory: %w", failed.Path, err) // in upstream's words
	}
	if err != nil {
		return output{}, err
	}
	if archive.None != nil {
		return output{file: from}, nil
	}
	whole := output{file: from}
	if archive.Zip != nil {
		return s.pack(o.name, whole.close, func(w io.Writer) error { return s.zipShared(w, a.Path, from) })
	}
	return s.pack(o.name, whole.close, func(w io.Writer) error { return s.writeTarball(w, a.Path, archive.Tar) })
}

// collectUnpacked unpacks the tarball that the emissary has left.
func (s *step) collectUnpacked(ctx context.Context, o *saving) (output, error) {
	a := &o.artifact
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
	whole := output{file: from, done: done}
	if a.Archive.Zip == nil {
		return whole, nil
	}
	if path.Base(from.Name()) != a.Name {
		whole.close()
		// Upstream looks for a single file by its old name. The step fails with it, and so it does here.
		return output{}, missing{"stat " + scratchDir + "/" + a.Name + ": no such file or directory"}
	}
	return s.pack(o.name, whole.close, func(w io.Writer) error { return writeZip(w, from) })
}

// unpacked unpacks a tarball in a folder and opens what was in it. The name of the open file is what upstream has it by: a
// file keeps its own name, from which its media type follows.
func unpacked(ctx context.Context, tarball *os.File, dir *os.Root, a *executor.Artifact) (*os.File, error) {
	if err := expand(ctx, tarball, untar, dir, a.Name+".tmpdir", a.Name); err != nil {
		return nil, inScratch(dir, err)
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

// pack returns a new file that write is to write. packed removes what write needs.
func (s *step) pack(name string, packed func(), write func(io.Writer) error) (output, error) {
	dir, done, err := s.scratch()
	if err != nil {
		packed()
		return output{}, err
	}
	o := output{
		write: func(w io.Writer) error { return inScratch(dir, write(w)) },
		done:  func() { done(); packed() },
	}
	o.file, err = dir.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		o.done()
		return output{}, err
	}
	return o, nil
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
	if err := root.MkdirAll(name, 0o777); err != nil {
		root.Close()
		return nil, nil, artifact.Whole(root, err)
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

// inScratch returns an error in which a path below a folder of scratch is the one that upstream has.
func inScratch(dir *os.Root, err error) error {
	failed, ok := err.(*fs.PathError)
	if !ok {
		return err
	}
	rel, ok := strings.CutPrefix(failed.Path, dir.Name()+"/")
	if !ok {
		return err
	}
	return &fs.PathError{Op: failed.Op, Path: scratchDir + "/" + rel, Err: failed.Err}
}
