package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// podPhases are the parts of the life of a pod with one container, in the order of a kubelet's
// requests.
var podPhases = []string{"run pod", "create container", "start container", "exit", "remove container", "stop pod", "remove pod", total}

// podContender is a runtime handler with the image it runs.
type podContender struct {
	name, handler, image string
	pods                 *testnode.Pods
	node                 *testnode.Node
	exits                <-chan string // ids of containers that have ended
}

// measurePods measures whole pods through containerd's CRI, without a kubelet.
func (p plan) measurePods(ctx context.Context, version string) (err error) {
	progress("starting containerd %s with CRI", version)
	node, err := testnode.Start(ctx, testnode.Options{Version: version, LogLevel: "warn", CRI: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Stop()) }()
	pods, err := node.Pods()
	if err != nil {
		return err
	}
	defer pods.Close()
	pair, err := podContenders(ctx, node, pods)
	if err != nil {
		return err
	}
	progress("%d pods of each runtime, one at a time", p.n)
	times := []samples{{}, {}}
	for i := range p.n {
		for k, c := range pair {
			if err := c.cycle(ctx, fmt.Sprintf("%s-%d", c.name, i), times[k]); err != nil {
				return err
			}
		}
	}
	printPhases(os.Stdout, fmt.Sprintf("pods with one container through CRI and CNI, one at a time, n=%d each, alternating", p.n), podPhases, times[0], times[1])
	printGoal(os.Stdout, "whole pod, wasm/runc, p50", times[0].quantile(total, 0.5)/times[1].quantile(total, 0.5), "≤", 1, "")
	return nil
}

func podContenders(ctx context.Context, node *testnode.Node, pods *testnode.Pods) ([]podContender, error) {
	pause, err := testguest.PauseImage()
	if err != nil {
		return nil, err
	}
	wasm, err := testguest.WasmImage("hello-c")
	if err != nil {
		return nil, err
	}
	hello, err := testguest.File("hello-native")
	if err != nil {
		return nil, err
	}
	native := testguest.ImageOpts{Files: map[string]string{"/hello": hello}, Entrypoint: []string{"/hello"}}
	const wasmRef, nativeRef = "example.com/bench/wasm:latest", "example.com/bench/runc:latest"
	for ref, opts := range map[string]testguest.ImageOpts{testnode.PauseImage: pause, wasmRef: wasm, nativeRef: native} {
		tar := filepath.Join(node.Dir, "image.tar")
		if err := testguest.WriteImage(tar, ref, opts); err != nil {
			return nil, err
		}
		if err := pods.Import(ctx, tar, ref); err != nil {
			return nil, err
		}
	}
	exits, err := pods.Exits(ctx)
	if err != nil {
		return nil, err
	}
	pair := []podContender{
		{name: "wasm", handler: testnode.WasmHandler, image: wasmRef, pods: pods, node: node, exits: exits},
		{name: "runc", image: nativeRef, pods: pods, node: node, exits: exits},
	}
	for _, c := range pair {
		for i := range 3 {
			if err := c.cycle(ctx, fmt.Sprintf("warm-%s-%d", c.name, i), samples{}); err != nil {
				return nil, err
			}
		}
	}
	return pair, nil
}

// cycle takes one pod from its creation to its removal and records how long each phase took.
func (c podContender) cycle(ctx context.Context, name string, times samples) error {
	pod := &criapi.PodSandboxConfig{
		Metadata:     &criapi.PodSandboxMetadata{Name: name, Uid: name, Namespace: "bench"},
		Hostname:     name,
		LogDirectory: filepath.Join(c.node.Dir, "logs"),
		Linux: &criapi.LinuxPodSandboxConfig{
			CgroupParent: c.node.CgroupParent("bench"),
			SecurityContext: &criapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &criapi.NamespaceOption{Pid: criapi.NamespaceMode_CONTAINER},
				Seccomp:          &criapi.SecurityProfile{ProfileType: criapi.SecurityProfile_RuntimeDefault},
			},
		},
	}
	watch := stopwatch{times: times, begun: time.Now(), last: time.Now()}
	ran, err := c.pods.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: pod, RuntimeHandler: c.handler})
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	watch.lap("run pod")
	err = c.runContainer(ctx, ran.PodSandboxId, pod, &watch)
	if _, stopErr := c.pods.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: ran.PodSandboxId}); err == nil {
		err = stopErr
	}
	watch.lap("stop pod")
	if _, removeErr := c.pods.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: ran.PodSandboxId}); err == nil {
		err = removeErr
	}
	watch.lap("remove pod")
	watch.end()
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

func (c podContender) runContainer(ctx context.Context, podID string, pod *criapi.PodSandboxConfig, watch *stopwatch) error {
	created, err := c.pods.CreateContainer(ctx, &criapi.CreateContainerRequest{
		PodSandboxId: podID, SandboxConfig: pod, Config: &criapi.ContainerConfig{
			Metadata: &criapi.ContainerMetadata{Name: "main"},
			Image:    &criapi.ImageSpec{Image: c.image},
			LogPath:  pod.Metadata.Name + ".log",
			Linux: &criapi.LinuxContainerConfig{
				Resources:       &criapi.LinuxContainerResources{CpuShares: 2},
				SecurityContext: &criapi.LinuxContainerSecurityContext{NamespaceOptions: pod.Linux.SecurityContext.NamespaceOptions},
			},
		},
	})
	if err != nil {
		return err
	}
	watch.lap("create container")
	if _, err := c.pods.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return err
	}
	watch.lap("start container")
	if err := c.awaitExit(ctx, created.ContainerId); err != nil {
		return err
	}
	watch.lap("exit")
	if _, err := c.pods.RemoveContainer(ctx, &criapi.RemoveContainerRequest{ContainerId: created.ContainerId}); err != nil {
		return err
	}
	watch.lap("remove container")
	return nil
}

// awaitExit returns when CRI has reported the container's end, as it does to the kubelet.
func (c podContender) awaitExit(ctx context.Context, id string) error {
	for {
		select {
		case ended, ok := <-c.exits:
			if !ok {
				return errors.New("containerd tells of no more events")
			}
			if ended == id {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
