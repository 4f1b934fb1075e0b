package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
	"github.com/wasmshim/containerd-shim-wasm/artifact/progress"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// artifactsAnnotation of a pod, whatever its value, has the pod's input artifacts downloaded before its main container
// starts, as Argo does it.
const artifactsAnnotation = "wasm.shim/download-artifacts"

// mayServe reports whether input artifacts may be served in the pod of an init container.
func (c *container) mayServe() bool {
	if _, downloads := c.spec.Annotations[artifactsAnnotation]; downloads || !c.settings.LazyArtifacts {
		return false
	}
	device, err := sandbox.OpenFuse()
	if err != nil {
		c.daemon.log.WithError(err).WithField("container", c.id).Warn("open the kernel's FUSE device: input artifacts are downloaded before their container starts (modprobe fuse mends it)")
		return false
	}
	device.Close()
	return true
}

// mainContainer is the name of the only container that Argo's controller gives input artifacts. Another one may have a
// volume of its own at the same path.
const mainContainer = "main"

// lazyIn returns the artifacts that a container is given and that init has not loaded: what the kubelet mounts there is
// empty.
func (of *workflow) lazyIn(spec *specs.Spec) []executor.Artifact {
	if spec.Annotations[containerNameAnnotation] != mainContainer {
		return nil
	}
	var found []executor.Artifact
	for _, a := range of.lazy {
		given := func(m specs.Mount) bool { return path.Clean(m.Destination) == a.Path && isLeft(m.Source) }
		if slices.ContainsFunc(spec.Mounts, given) {
			found = append(found, a)
		}
	}
	return found
}

// isLeft reports whether an artifact is left to be read later, by the source of its mount, which the kubelet has chosen. It
// follows no link, and opens nothing but a folder: a container may have made a device there.
func isLeft(source string) bool {
	f, err := os.OpenFile(source, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	left, err := executor.IsLeft(f)
	return left && err == nil
}

// serveArtifacts returns the mounts of the input artifacts that init has not loaded. Our program in the wait container
// serves them from then on.
func (c *container) serveArtifacts(ctx context.Context) ([]sandbox.Fuse, error) {
	of := c.daemon.workflow.Load()
	if of == nil || len(of.lazyIn(c.spec)) == 0 || of.has(executor.FetchVerb) {
		return nil, nil
	}
	server, runs, err := of.executor(executor.ServeVerb)
	if err != nil {
		return nil, fmt.Errorf("serve the input artifacts: %w", err)
	}
	devices, err := openDevices(len(of.lazy))
	if err != nil {
		return nil, err
	}
	defer closeFiles(devices)
	serves := &artifactServer{argoExecutor: runs, artifacts: of.lazy, devices: devices}
	p := server.newHelper("wasm-shim-serve-"+c.id, runs.process, serves, devices)
	p.apart = true
	if err := p.addProgress(); err != nil {
		return nil, err
	}
	if err := server.startHelper(ctx, p); err != nil {
		return nil, fmt.Errorf("serve the input artifacts: %w", errors.Join(err, giveUpMounts(serves.mounts)))
	}
	p.files, p.connections = nil, connectionsOf(serves.mounts)
	c.served.Store(p)
	return serves.mounts, nil
}

// needsDownload reports whether the daemon would look for the container's module or its working directory in an artifact.
func (of *workflow) needsDownload(c *container) bool {
	if of == nil {
		return false
	}
	process, point := c.spec.Process, c.command.point()
	paths := append(point.Paths(process.Cwd, process.Env), process.Cwd)
	if local := point.Local(process.Cwd); local != "" {
		paths = append(paths, local)
	}
	return slices.ContainsFunc(of.lazyIn(c.spec), func(a executor.Artifact) bool {
		return slices.ContainsFunc(paths, func(p string) bool {
			return strings.HasPrefix(path.Clean(p)+"/", a.Path+"/")
		})
	})
}

// lastReads is how long the program that serves a container's artifacts may take to end by itself when the container has
// ended: the kernel then unmounts them, and the program logs what was read.
const lastReads = time.Second

// endArtifacts ends the program that serves the container's artifacts. It is a no-op for a container without any.
func (c *container) endArtifacts() {
	c.requested.end(c)
	c.endServer(c.served.Swap(nil), lastReads)
}

// endServer ends a program that serves artifacts of the container, which may take some time to end by itself. It is a no-op
// for nil.
func (c *container) endServer(p *process, patience time.Duration) {
	if p == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = p.await(ctx, phase.isOver)
	c.trace(p)
	if err := errors.Join(p.abortConnections(), p.closeConnections()); err != nil {
		c.daemon.log.WithError(err).WithField("container", c.id).Warn("end what was served to the container: the kernel may keep it until the pod ends")
	}
	if err := p.container.endHelper(context.Background(), p); err != nil {
		c.daemon.log.WithError(err).WithField("container", c.id).WithField("in", p.container.id).Warn("end the program that serves the container's artifacts: it ends with the container in which it is")
	}
}

// hangUpArtifacts makes reads fail that wait for a program that may be stopped: the kernel does not kill a process that
// waits for such an answer.
func (c *container) hangUpArtifacts() {
	c.requested.giveUp()
	c.served.Load().cutOff()
}

// cutOff ends what a program serves, and kills it. It may have been taken over: then its end alone is not that of a
// connection whose descriptor it has passed on. It is a no-op for nil.
func (p *process) cutOff() {
	if p == nil {
		return
	}
	if err := p.abortConnections(); err != nil {
		p.container.daemon.log.WithError(err).WithField("container", p.container.id).Warn("end what a program serves to a container that is killed: the container may wait for it")
	}
	_ = p.signal(unix.SIGKILL) // fails only for one that has ended
}

func (p *process) abortConnections() error {
	var err error
	for _, c := range p.connections {
		if abortErr := c.Abort(); !errors.Is(abortErr, os.ErrClosed) {
			err = errors.Join(err, abortErr)
		}
	}
	return err
}

func (p *process) closeConnections() error {
	var err error
	for _, c := range p.connections {
		err = errors.Join(err, c.Close())
	}
	return err
}

// addProgress gives a process a last descriptor for what it has done.
func (p *process) addProgress() error {
	var err error
	p.made = time.Now()
	if p.progress, err = progress.New(); err == nil {
		p.files = append(p.files, p.progress)
	}
	return err
}

// artifactServer is our program when it serves artifacts.
type artifactServer struct {
	argoExecutor
	artifacts []executor.Artifact
	devices   []*os.File
	mounts    []sandbox.Fuse
}

// started mounts what the program reports that it can serve, and waits until it does.
func (s *artifactServer) started(ctx context.Context, w *worker) error {
	report, err := awaitReport(ctx, w, waitLog)
	if err != nil {
		return err
	}
	if len(report.Artifacts) != len(s.artifacts) {
		return fmt.Errorf("the program reports %d artifacts of %d", len(report.Artifacts), len(s.artifacts))
	}
	for i, kind := range report.Artifacts {
		if kind == control.NoArtifact {
			continue
		}
		mount, err := sandbox.MountFuse(s.devices[i], s.artifacts[i].Path, kind == control.Folder)
		if err != nil {
			return err
		}
		mount.OnMount = true // the kubelet mounts what init has left
		s.mounts = append(s.mounts, mount)
	}
	if err := w.control.Start(); err != nil {
		return err
	}
	_, err = awaitReport(ctx, w, waitLog)
	return err
}

func openDevices(n int) ([]*os.File, error) {
	var devices []*os.File
	for range n {
		device, err := sandbox.OpenFuse()
		if err != nil {
			closeFiles(devices)
			return nil, err
		}
		devices = append(devices, device)
	}
	return devices, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func connectionsOf(mounts []sandbox.Fuse) []*sandbox.Connection {
	var all []*sandbox.Connection
	for _, m := range mounts {
		all = append(all, m.Connection)
	}
	return all
}

// giveUpMounts closes mounts that are not attached, and their connections.
func giveUpMounts(mounts []sandbox.Fuse) error {
	err := closeMounts(mounts)
	for _, m := range mounts {
		err = errors.Join(err, m.Connection.Close())
	}
	return err
}

func closeMounts(mounts []sandbox.Fuse) error {
	var err error
	for _, m := range mounts {
		err = errors.Join(err, m.Close())
	}
	return err
}
