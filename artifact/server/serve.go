package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/minio/minio-go/v7"

	"github.com/wasmshim/containerd-shim-wasm/artifact/mount"
	"github.com/wasmshim/containerd-shim-wasm/artifact/object"
	"github.com/wasmshim/containerd-shim-wasm/artifact/output"
	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// cacheSize bounds what is kept in memory of all inputs, in bytes.
const cacheSize = 24 << 20

// Modes of the files.
const (
	fileMode   fs.FileMode = 0o644
	folderMode fs.FileMode = 0o755
)

// Options are what a server needs beside its order.
type Options struct {
	Spool *os.Root // for what the container writes
	Log   *slog.Logger
	// Noted is called when an upload begins, before its first part is sent, and when it has ended: someone else can abort
	// it if this process is killed. It may be called by several goroutines at once.
	Noted func(control.Upload)
}

// Artifacts are those of one container, as they are in their stores.
type Artifacts struct {
	order control.Serve
	Options
	cache   *object.Cache
	inputs  []input
	outputs []served
	room    *mount.Room // of what the container writes
	running sync.WaitGroup
}

// served are the outputs of one mount.
type served struct {
	control.ServedMount
	*output.Outputs
}

// input is an object or a folder of objects, whose versions are fixed.
type input struct {
	control.ServedArtifact
	bucket object.Bucket
	files  map[string]*object.Object // of a folder, by path
	object *object.Object
}

// Find looks whether the inputs are in their stores. Its errors name bucket and key.
func Find(ctx context.Context, order control.Serve, o Options) (*Artifacts, error) {
	cache, err := object.NewCache(cacheSize)
	if err != nil {
		return nil, err
	}
	all := &Artifacts{order: order, Options: o, cache: cache, room: mount.NewRoom(order.SpoolSize)}
	for _, m := range order.Mounts {
		if m.Artifacts[0].Output {
			continue
		}
		in, err := all.find(ctx, m.Artifacts[0])
		if err != nil {
			return nil, named(m.Artifacts[0], err)
		}
		all.inputs = append(all.inputs, in)
	}
	return all, nil
}

func named(a control.ServedArtifact, err error) error {
	return fmt.Errorf("artifact %s (%s of %s): %w", a.Name, a.At.URI(), a.At.Endpoint, err)
}

func (all *Artifacts) find(ctx context.Context, a control.ServedArtifact) (input, error) {
	in := input{ServedArtifact: a}
	client, err := connect(all.order, a)
	if err != nil {
		return in, err
	}
	in.bucket = object.Bucket{Client: client, Name: a.At.Bucket}
	if in.bucket.SSE, _, err = encryption(a); err != nil {
		return in, err
	}
	if a.Folder {
		return in, all.list(ctx, &in)
	}
	info, err := in.bucket.StatVersion(ctx, a.At.Key, a.At.Version)
	if err != nil {
		return in, plain(err)
	}
	in.object = all.cache.Open(in.bucket, info)
	return in, nil
}

// plain leaves out what the caller's error says again, and says what S3 says to nobody but in a status.
func plain(err error) error {
	var of *object.Error
	if !errors.As(err, &of) {
		return err
	}
	var response minio.ErrorResponse
	if errors.As(of.Err, &response) && response.Code != "" {
		return fmt.Errorf("%s: %w", response.Code, of.Err)
	}
	return of.Err
}

// list looks for the files of a folder.
func (all *Artifacts) list(ctx context.Context, in *input) error {
	in.files = map[string]*object.Object{}
	for info, err := range in.bucket.Files(ctx, in.At.Key) {
		if err != nil {
			return plain(err)
		}
		name := strings.TrimPrefix(info.Key, in.At.Key)
		if !filepath.IsLocal(name) || path.Clean(name) != name {
			return fmt.Errorf("the key %q cannot be a file", info.Key)
		}
		in.files[name] = all.cache.Open(in.bucket, info)
	}
	if len(in.files) == 0 {
		return errors.New("NoSuchKey: there is no object with that prefix")
	}
	return nil
}

// Serve serves each mount of the order by a descriptor of /dev/fuse, which has been mounted. It takes the descriptors over.
func (all *Artifacts) Serve(devices []*os.File) error {
	inputs := all.inputs
	for i, m := range all.order.Mounts {
		if m.Artifacts[0].Output {
			if err := all.serveOutputs(m, devices[i]); err != nil {
				return fmt.Errorf("serve the outputs at %s: %w", m.Path, err)
			}
			continue
		}
		if err := all.serveInput(inputs[0], devices[i]); err != nil {
			return named(inputs[0].ServedArtifact, err)
		}
		inputs = inputs[1:]
	}
	return nil
}

func (all *Artifacts) serveInput(in input, device *os.File) error {
	var server *mount.Server
	var err error
	if in.Folder {
		tree := mount.Tree{Files: map[string]mount.File{}, Mode: folderMode, UID: all.order.UID, GID: all.order.GID, Spool: all.Spool, Room: all.room}
		for name, o := range in.files {
			tree.Files[name] = all.file(o)
		}
		server, err = mount.ServeTree(device, tree, all.Log)
	} else {
		file := all.file(in.object)
		file.Spool, file.Room = all.Spool, all.room
		server, err = mount.ServeFile(device, file, all.Log)
	}
	if err != nil {
		return err
	}
	all.running.Go(func() {
		server.Wait()
		all.sum(in)
	})
	return nil
}

func (all *Artifacts) file(o *object.Object) mount.File {
	return mount.File{Object: o, Mode: fileMode, UID: all.order.UID, GID: all.order.GID}
}

// stats are the sums over all objects of an input, whose size is size.
func (in input) stats() (sum object.Stats, size int64) {
	if in.object != nil {
		sum, size = in.object.Stats(), in.object.Info().Size
	}
	for _, o := range in.files {
		sum, size = sum.Plus(o.Stats()), size+o.Info().Size
	}
	return sum, size
}

// Progress says what was done for each artifact.
func (all *Artifacts) Progress() []progress.Artifact {
	var done []progress.Artifact
	for _, in := range all.inputs {
		sum, size := in.stats()
		done = append(done, sum.Of(progress.Artifact{Name: in.Name, Path: in.Path, Object: in.At.URI(), Size: size}))
	}
	for _, o := range all.outputs {
		for i, p := range o.Progress() {
			a := o.Artifacts[i]
			done = append(done, progress.Artifact{
				Name: a.Name, Path: a.Path, Object: a.At.URI(), Output: true, Moved: p.Sent, State: cmp.Or(p.State, "writing"),
			})
		}
	}
	return done
}

// sum logs what was read of an input, for people who ask why a task was slow.
func (all *Artifacts) sum(in input) {
	sum, _ := in.stats()
	all.Log.With("name", in.Name).Info("an artifact was read from its store", sum.Fields()...)
}

func (all *Artifacts) serveOutputs(m control.ServedMount, device *os.File) error {
	var wanted []output.Output
	for _, a := range m.Artifacts {
		o := output.Output{Name: a.Name, Path: ".", Bucket: a.At.Bucket, Key: a.At.Key, Archive: a.Archive, Always: a.Always}
		if !a.Folder {
			o.Path = path.Base(a.Path)
		}
		var err error
		if _, o.SSE, err = encryption(a); err != nil {
			return named(a, err)
		}
		if o.Client, err = connect(all.order, a); err != nil {
			return named(a, err)
		}
		wanted = append(wanted, o)
	}
	outputs := output.New(wanted, output.Options{
		Spool: all.Spool, Room: all.room, Mode: folderMode, UID: all.order.UID, GID: all.order.GID, Log: all.Log,
		Noted: func(u output.Upload, ended bool) {
			all.Noted(control.Upload{Artifact: nameOf(m, u), Bucket: u.Bucket, Key: u.Key, ID: u.ID, Ended: ended})
		},
	})
	all.outputs = append(all.outputs, served{m, outputs})
	return outputs.Serve(device)
}

// nameOf returns the name of the output that an upload is of.
func nameOf(m control.ServedMount, u output.Upload) string {
	for _, a := range m.Artifacts {
		if a.Stores(u.Bucket, u.Key) {
			return a.Name
		}
	}
	return ""
}

// AbortLeft aborts the uploads of an order, which another process has left.
func AbortLeft(ctx context.Context, order control.Serve) error {
	var failed error
	for _, u := range order.Abort {
		for _, m := range order.Mounts {
			for _, a := range m.Artifacts {
				if a.Name != u.Artifact {
					continue
				}
				client, err := connect(order, a)
				if err == nil {
					err = output.Abort(ctx, client, output.Upload{Bucket: u.Bucket, Key: u.Key, ID: u.ID})
				}
				if err != nil {
					failed = errors.Join(failed, named(a, err))
				}
			}
		}
	}
	return failed
}

// Finish stores the outputs of a container that has ended.
func (all *Artifacts) Finish(ctx context.Context, succeeded bool) error {
	var outputs []*output.Outputs
	for _, o := range all.outputs {
		outputs = append(outputs, o.Outputs)
	}
	return output.Finish(ctx, outputs, succeeded)
}

// Abort aborts all uploads.
func (all *Artifacts) Abort() error {
	var err error
	for _, o := range all.outputs {
		err = errors.Join(err, o.Abort())
	}
	return err
}

// Wait returns when no input is mounted any more.
func (all *Artifacts) Wait() { all.running.Wait() }
