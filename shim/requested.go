package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync/atomic"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/wasmshim/containerd-shim-wasm/artifact/request"
	"github.com/wasmshim/containerd-shim-wasm/internal/place"
	"github.com/wasmshim/containerd-shim-wasm/sandbox"
	"github.com/wasmshim/containerd-shim-wasm/shim/stdio"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// requested are the artifacts that a pod asks for by annotation, for one container. Our program serves them in the pod's
// pause container: it has the pod's network and cgroup, and nothing that guests can reach.
type requested struct {
	order   control.Serve
	used    []string // names of variables that the guest does not get
	outputs bool
	spool   string // folder of what is not uploaded yet
	server  atomic.Pointer[process]

	finished chan error // the answer of the program when it has stored the outputs, or has ended
	uploads  uploads

	finishing atomic.Bool        // the container's process has ended
	givingUp  context.CancelFunc // ends the upload of outputs
	ctx       context.Context
}

// request returns the artifacts that the pod asks for, nil for none. The container's specification no longer has what
// their credentials come from.
func (c *container) request() (*requested, error) {
	wanted, err := request.Parse(c.spec.Annotations, c.spec.Annotations[containerNameAnnotation])
	if err != nil || len(wanted) == 0 {
		return nil, err
	}
	source := c.spec.Annotations[request.CredentialsAnnotation]
	if source != "" {
		if err := request.CheckCredentials(source); err != nil {
			return nil, fmt.Errorf("annotation %s: %w", request.CredentialsAnnotation, err)
		}
	}
	r := &requested{order: control.Serve{UID: c.spec.Process.User.UID, GID: c.spec.Process.User.GID, SpoolSize: c.settings.SpoolSize}}
	from := &accessor{settings: c.settings, namespace: c.spec.Annotations[sandboxNamespaceAnnotation], spec: c.spec, source: source}
	for _, a := range wanted {
		access, err := from.access(&a)
		if err != nil {
			return nil, fmt.Errorf("annotation %s%s: %w", request.Prefix, a.Name, err)
		}
		r.add(control.ServedArtifact{Artifact: a, Access: access})
	}
	r.order.Authorities = from.authorities.texts
	if err := r.order.Check(); err != nil {
		return nil, err
	}
	from.hide()
	r.used = from.used
	for _, m := range r.order.Mounts {
		if err := free(m, c.spec.Mounts); err != nil {
			return nil, fmt.Errorf("annotation %s%s: %w", request.Prefix, m.Artifacts[0].Name, err)
		}
	}
	r.finished = make(chan error, 1)
	r.ctx, r.givingUp = context.WithCancel(context.Background())
	return r, nil
}

// add adds an artifact to the mounts. Outputs in one folder share one.
func (r *requested) add(a control.ServedArtifact) {
	r.outputs = r.outputs || a.Output
	at := a.Mountpoint()
	for i := range r.order.Mounts {
		if m := &r.order.Mounts[i]; m.Path == at && a.Output {
			m.Artifacts = append(m.Artifacts, a)
			return
		}
	}
	r.order.Mounts = append(r.order.Mounts, control.ServedMount{Path: at, Artifacts: []control.ServedArtifact{a}})
}

// free returns an error if the container has another mount at, above or below the place of one.
func free(m control.ServedMount, mounts []specs.Mount) error {
	for _, other := range mounts {
		if at := path.Clean(other.Destination); at != "/" && place.Nested(at, m.Path) {
			return fmt.Errorf("%s is at, above or below the container's mount %s: choose a path outside of it", m.Path, at)
		}
	}
	return nil
}

// withheld are the names of variables that the guest does not get.
func (r *requested) withheld() []string {
	if r == nil {
		return nil
	}
	return r.used
}

// serve starts our program, waits until it has found the inputs, and returns the mounts that it serves.
func (r *requested) serve(ctx context.Context, c *container) ([]sandbox.Fuse, error) {
	if r == nil {
		return nil, nil
	}
	pause := c.daemon.pause.Load()
	if pause == nil || pause.init.now() != running {
		return nil, fmt.Errorf("the pod asks for artifacts (annotations %s*), which our program serves in the pod's pause container: "+
			"this container is in no pod, or its pause container runs under the stock shim, whose log says why", request.Prefix)
	}
	devices, err := openDevices(len(r.order.Mounts))
	if err != nil {
		return nil, fmt.Errorf("serve artifacts (modprobe fuse mends a missing device): %w", err)
	}
	defer closeFiles(devices)
	var mounts []sandbox.Fuse
	for i, m := range r.order.Mounts {
		// Of the place, the kind is known: no request is made.
		isFolder := m.Artifacts[0].Output || m.Artifacts[0].Folder
		mount, err := sandbox.MountFuse(devices[i], m.Path, isFolder)
		if err != nil {
			return nil, errors.Join(err, giveUpMounts(mounts))
		}
		mounts = append(mounts, mount)
	}
	if err := r.start(ctx, c, pause, devices, connectionsOf(mounts)); err != nil {
		return nil, errors.Join(err, giveUpMounts(mounts))
	}
	return mounts, nil
}

func (r *requested) start(ctx context.Context, c, pause *container, devices []*os.File, connections []*sandbox.Connection) error {
	r.spool = filepath.Join(c.settings.SpoolDir, c.daemon.flags.Namespace, c.id)
	// The delete verb removes the folder if this process dies.
	if err := c.writeStateBefore(); err != nil {
		return err
	}
	spool, err := makeSpool(ctx, r.spool)
	if err != nil {
		r.removeSpool(c)
		return fmt.Errorf("make a folder for what is written to artifacts (spool_dir in %s): %w", c.settings.Source, err)
	}
	defer spool.Close()
	p := c.newServer("wasm-shim-artifacts-", pause, &r.order)
	p.files = slices.Concat(devices, []*os.File{spool})
	err = p.addProgress()
	if err == nil {
		err = pause.startHelper(ctx, p)
	}
	if err != nil {
		r.removeSpool(c)
		return err
	}
	p.files, p.connections = nil, connections
	r.order = forAborts(r.order)
	r.server.Store(p)
	go r.listen(p)
	return nil
}

// forAborts returns what is needed of an order once its artifacts are served: how to get at the stores in which uploads may
// have to be aborted.
func forAborts(order control.Serve) control.Serve {
	kept := control.Serve{Authorities: make([][]byte, len(order.Authorities))}
	for _, m := range order.Mounts {
		if !m.Artifacts[0].Output {
			continue
		}
		kept.Mounts = append(kept.Mounts, m)
		for _, a := range m.Artifacts {
			if i := a.Access.Authorities - 1; i >= 0 {
				kept.Authorities[i] = order.Authorities[i]
			}
		}
	}
	return kept
}

// newServer returns an exec of our program in the pause container. It has no rights, and nothing of either container but
// the place to log to.
func (c *container) newServer(id string, pause *container, serves *control.Serve) *process {
	process := *pause.spec.Process
	process.Args, process.Env, process.Cwd, process.Terminal = []string{"wasm-artifacts"}, nil, "/", false
	process.Capabilities, process.NoNewPrivileges = &specs.LinuxCapabilities{}, true
	process.User = specs.User{UID: serverID, GID: serverID}
	process.OOMScoreAdj, process.Rlimits = c.spec.Process.OOMScoreAdj, nil
	p := newProcess(pause, id+c.id, added, &process, &artifactProgram{serves: serves}, stdio.Names{Stderr: c.stderr})
	p.apart = true
	return p
}

// serverID is the user and the group of the program: those of nobody.
const serverID = 65534

// artifactProgram is our program that serves artifacts.
type artifactProgram struct {
	silent
	serves *control.Serve // until it has its order, which may be large
}

func (*artifactProgram) program(d *daemon) (*os.File, bool, error) {
	return argoExecutor{}.program(d)
}

func (*artifactProgram) env() []string { return []string{control.RoleEnv + "=" + control.RoleServe} }

func (a *artifactProgram) order(w *worker) error {
	order := a.serves
	a.serves = nil
	return w.control.Serve(*order)
}

func (*artifactProgram) started(ctx context.Context, w *worker) error {
	_, err := awaitReport(ctx, w, ownLog)
	return err
}

func (*artifactProgram) exec(*specs.Process) (payload, error) { return nil, errors.ErrUnsupported }
