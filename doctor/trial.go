package doctor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/wasmshim/containerd-shim-wasm/install"
)

const (
	// trialNamespace is a namespace in containerd for this container alone.
	trialNamespace = "containerd-shim-wasm-doctor"
	// trialWithin bounds the container's life, trialClean its removal.
	trialWithin = time.Minute
	trialClean  = 30 * time.Second
	// trialFile is the module in the container's root.
	trialFile = "doctor.wasm"
)

// trialModule is a module whose only instruction of note is a call of proc_exit with
// trialStatus, which no failure of a container produces.
var trialModule = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x08\x02\x60\x01\x7f\x00\x60\x00\x00" + // types: (i32) -> (), () -> ()
	"\x02\x24\x01\x16wasi_snapshot_preview1\x09proc_exit\x00\x00" +
	"\x03\x02\x01\x01" + // one function of the second type
	"\x07\x0a\x01\x06_start\x00\x01" +
	"\x0a\x08\x01\x06\x00\x41\x2a\x10\x00\x0b") // i32.const 42, call 0, end

const trialStatus = 42

func checkTrial(ctx context.Context, n *node) Result {
	if n.containerd.err != nil {
		return unknown("containerd does not answer", "see the first row")
	}
	took, err := n.trial(ctx)
	if err != nil {
		return wrong(err.Error(), "mend what is wrong above; else look at containerd's log: journalctl -u containerd")
	}
	return ok(fmt.Sprintf("a Wasm container ran to its end in %d ms", took.Milliseconds()))
}

// trial is a container without an image: its root is a folder with one file.
type trial struct {
	id, dir    string
	containers containersapi.ContainersClient
	tasks      tasksapi.TasksClient
	namespaces namespacesapi.NamespacesClient
}

// trial runs the container and removes it, and returns the time from the creation of its
// task to the task's end.
func (n *node) trial(ctx context.Context) (took time.Duration, err error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", trialNamespace)
	t := &trial{
		id:         "doctor-" + strings.ToLower(rand.Text()[:8]),
		containers: containersapi.NewContainersClient(n.containerd.conn),
		tasks:      tasksapi.NewTasksClient(n.containerd.conn),
		namespaces: namespacesapi.NewNamespacesClient(n.containerd.conn),
	}
	// Below /run, since containerd's service may have a /tmp of its own.
	if t.dir, err = os.MkdirTemp("/run", "containerd-shim-wasm-doctor-"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, t.clean(context.WithoutCancel(ctx))) }()
	err = errors.Join(
		os.WriteFile(filepath.Join(t.dir, trialFile), trialModule, 0o444),
		os.Mkdir(filepath.Join(t.dir, "dev"), 0o755), // the root is read-only, so a mount needs its folder
	)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, trialWithin)
	defer cancel()
	if err := t.create(ctx, n); err != nil {
		return 0, plain(err)
	}
	began := time.Now()
	status, err := t.run(ctx)
	if err != nil {
		return 0, plain(err)
	}
	if status != trialStatus {
		return 0, fmt.Errorf("the Wasm container ended with status %d instead of %d", status, trialStatus)
	}
	return time.Since(began), nil
}

func (t *trial) create(ctx context.Context, n *node) error {
	systemd := false
	if c, err := n.shimConfig(); err == nil {
		systemd = c.SystemdCgroup
	}
	spec, err := json.Marshal(t.spec(systemd))
	if err != nil {
		return err
	}
	var options *anypb.Any
	if path := install.RunningConfigPath(n.containerd.cri); path != "" {
		if options, err = anypb.New(&runtimeoptions.Options{ConfigPath: path}); err != nil {
			return err
		}
		// containerd's own form of such names has no host before the type.
		options.TypeUrl = strings.TrimPrefix(options.TypeUrl, "type.googleapis.com/")
	}
	_, err = t.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID:      t.id,
		Runtime: &containersapi.Container_Runtime{Name: install.RuntimeType, Options: options},
		Spec:    &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: spec},
	}})
	return err
}

// spec is the least that confines the container as any other: namespaces of its own, no
// capabilities, a root that cannot be written.
func (t *trial) spec(systemd bool) *specs.Spec {
	cgroup := "/" + trialNamespace + "-" + t.id
	if systemd {
		cgroup = "system.slice:" + trialNamespace + ":" + t.id
	}
	var namespaces []specs.LinuxNamespace
	for _, kind := range []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.MountNamespace, specs.NetworkNamespace,
	} {
		namespaces = append(namespaces, specs.LinuxNamespace{Type: kind})
	}
	return &specs.Spec{
		Version: "1.1.0",
		Root:    &specs.Root{Path: "rootfs", Readonly: true},
		Process: &specs.Process{Args: []string{"/" + trialFile}, Cwd: "/", NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{}},
		Mounts:  []specs.Mount{{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=64k"}}},
		Linux:   &specs.Linux{Namespaces: namespaces, CgroupsPath: cgroup},
	}
}

// run starts the container's task and waits for its end.
func (t *trial) run(ctx context.Context) (status uint32, err error) {
	_, err = t.tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: t.id, Rootfs: []*types.Mount{
		{Type: "bind", Source: t.dir, Options: []string{"rbind", "ro"}},
	}})
	if err != nil {
		return 0, err
	}
	if _, err = t.tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: t.id}); err != nil {
		return 0, err
	}
	answer, err := t.tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: t.id})
	return answer.GetExitStatus(), err
}

// clean removes everything that exists of the container.
func (t *trial) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, trialClean)
	defer cancel()
	// A task that does not run cannot be killed, and one that was not created is not there.
	_, _ = t.tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: t.id, Signal: uint32(unix.SIGKILL), All: true})
	_, _ = t.tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: t.id})
	_, _ = t.tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: t.id})
	_, _ = t.containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: t.id})
	err := os.RemoveAll(t.dir)
	// Two doctors at once share the namespace: the last one takes it away.
	if left, listErr := t.containers.List(ctx, &containersapi.ListContainersRequest{}); listErr == nil && len(left.Containers) == 0 {
		_, _ = t.namespaces.Delete(ctx, &namespacesapi.DeleteNamespaceRequest{Name: trialNamespace})
	} else if listErr == nil {
		for _, container := range left.Containers {
			if container.ID == t.id {
				err = errors.Join(err, fmt.Errorf("the test container %s is still there: ctr -n %s containers rm %s", t.id, trialNamespace, t.id))
			}
		}
	}
	return err
}
