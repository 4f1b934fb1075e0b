package e2e

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A guest that takes more memory than its limit is killed. The pod and the workflow both report that.
func TestWorkflowOutOfMemory(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  volumes: [{name: memory, emptyDir: {medium: Memory}}]
  container:
    image: $IMAGE
    command: [$PROBE]
    args: [fill, /memory/file]
    resources: {limits: {memory: 64Mi}}
    volumeMounts: [{name: memory, mountPath: /memory}]
`, func(t *testing.T, w workflow) {
		w.is(t, "Failed")
		n := w.node(t, "").is(t, "Failed", "137")
		if !strings.Contains(n.Message, "OOMKilled") {
			t.Errorf("the node says %q", n.Message)
		}
		if end := terminated(t, w.argo.pod(t, w, ""), "main"); end.Reason != "OOMKilled" || end.ExitCode != 137 {
			t.Errorf("main ended %s with %d", end.Reason, end.ExitCode)
		}
	})
}

// When a guest's own memory reaches the limit, memory.grow fails and the guest decides how to end. A native program
// is killed.
func TestWorkflowMemoryLimit(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.run(t, asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  container: {image: $IMAGE, command: [$PROBE], args: [grow], resources: {limits: {memory: 64Mi}}}
`)).is(t, "Failed")
		w.node(t, "").is(t, "Failed", "3")
	})
}

// Sidecars of both kinds serve a main container and end when it ends.
func TestWorkflowSidecars(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  volumes: [{name: work, emptyDir: {}}]
  container:
    image: $IMAGE
    command: [$PROBE]
    args: [await, /work/one, "1", ",", await, /work/two, "2", ",", write, /tmp/done, both]
    volumeMounts: [{name: work, mountPath: /work}]
  sidecars:
  - {name: native, image: `+nativeImage+`, command: [/app], args: [write, /work/one, "1", ",", sleep, "1000"], mirrorVolumeMounts: true}
  - {name: wasm, image: $IMAGE, command: [$PROBE], args: [write, /work/two, "2", ",", sleep, "1000"], mirrorVolumeMounts: true}
  outputs: {parameters: [{name: done, valueFrom: {path: /tmp/done}}]}
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		equal(t, "the parameter", w.node(t, "").parameter(t, "done"), "both")
	})
}

// Init containers of the user, of both kinds, run before the main container.
func TestWorkflowInitContainers(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  volumes: [{name: work, emptyDir: {}}]
  initContainers:
  - {name: native, image: `+nativeImage+`, command: [/app], args: [write, /work/text, "one "], mirrorVolumeMounts: true}
  - {name: wasm, image: $IMAGE, command: [$PROBE], args: [append, /work/text, two], mirrorVolumeMounts: true}
  container: {image: $IMAGE, command: [$PROBE], args: [copy, /work/text, /tmp/text], volumeMounts: [{name: work, mountPath: /work}]}
  outputs: {parameters: [{name: text, valueFrom: {path: /tmp/text}}]}
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		equal(t, "the parameter", w.node(t, "").parameter(t, "text"), "one two")
	})
}

// A set of containers of both kinds: dependencies, retries in the pod, outputs of the one called "main".
func TestWorkflowContainerSet(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  volumes: [{name: work, emptyDir: {}}]
  containerSet:
    volumeMounts: [{name: work, mountPath: /work}]
    retryStrategy: {retries: "3", duration: 100ms}
    containers:
    - {name: first, image: $IMAGE, command: [$PROBE], args: [tries, /work/tries, "3"]}
    - {name: second, image: `+nativeImage+`, command: [/app], args: [copy, /work/tries, /work/copy], dependencies: [first]}
    - {name: main, image: $IMAGE, command: [$PROBE], args: [copy, /work/copy, /tmp/out], dependencies: [second]}
  outputs: {parameters: [{name: out, valueFrom: {path: /tmp/out}}]}
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		for _, container := range []string{"first", "second", "main"} {
			w.node(t, container).is(t, "Succeeded", "")
		}
		equal(t, "the tries", w.node(t, "").parameter(t, "out"), "xxx")
	})
}

// When a container of a set fails, those that depend on it do not run.
func TestWorkflowContainerSetFails(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.run(t, asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  containerSet:
    containers:
    - {name: first, image: $IMAGE, command: [$PROBE], args: [exit, "5"]}
    - {name: main, image: $IMAGE, command: [$PROBE], args: [say, ran], dependencies: [first]}
`)).is(t, "Failed")
		pod := w.argo.pod(t, w, "")
		if end := terminated(t, pod, "first"); end.ExitCode != 5 {
			t.Errorf("the first container ended with %d", end.ExitCode)
		}
		if end := terminated(t, pod, "main"); end.ExitCode != 64 {
			t.Errorf("the second container ended with %d", end.ExitCode)
		}
	})
}

// A daemon runs beside the steps that follow, and ends with them.
func TestWorkflowDaemon(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.run(t, asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  steps:
  - - {name: daemon, template: daemon}
  - - {name: client, template: client, arguments: {parameters: [{name: ip, value: "{{steps.daemon.ip}}"}]}}
- name: daemon
  daemon: true
  container: {image: $IMAGE, command: [$PROBE], args: [sleep, "1000"]}
- name: client
  inputs: {parameters: [{name: ip}]}
  container: {image: $IMAGE, command: [$PROBE], args: [write, /tmp/ip, "{{inputs.parameters.ip}}"]}
  outputs: {parameters: [{name: ip, valueFrom: {path: /tmp/ip}}]}
`)).is(t, "Succeeded")
		if ip := w.node(t, "[1].client").parameter(t, "ip"); !strings.HasPrefix(ip, "10.244.") {
			t.Errorf("the daemon's address was %q", ip)
		}
		pod := a.ended(t, a.pod(t, w, "[0].daemon").Name)
		if end := terminated(t, pod, "main"); end.ExitCode != 143 {
			t.Errorf("the daemon ended with %d", end.ExitCode)
		}
	})
}

// A container waits before and after its guest until a person who inspects the pod lets it continue.
func TestWorkflowDebugPause(t *testing.T) {
	sameWhen(t, `
entrypoint: main
templates:
- name: main
  container:
    image: $IMAGE
    command: [$PROBE]
    args: [write, /tmp/done, "yes", ",", say, through]
    env: [{name: ARGO_DEBUG_PAUSE_BEFORE, value: "true"}, {name: ARGO_DEBUG_PAUSE_AFTER, value: "true"}]
  outputs: {parameters: [{name: done, valueFrom: {path: /tmp/done}}]}
`, func(t *testing.T, w workflow) {
		w = w.until(t, "runs", func(w workflow) bool { return w.has("", "Running") })
		pod := w.argo.pod(t, w, "").Name
		const main = "/proc/1/root/var/run/argo/ctr/main/"
		release := func(file string) {
			kubectl(t, "--namespace", w.argo.name, "debug", pod, "--image", nativeImage, "--target", "main", "--container", "release-"+file,
				"--profile", "general", "--", "sh", "-c", "until touch "+main+file+"; do sleep 0.1; done")
		}
		if log := w.argo.logs(t, pod, "main"); strings.Contains(log, "through") {
			t.Errorf("the guest has not waited: %s", log)
		}
		release("before")
		w.says(t, "", "through")
		if state := containerStatus(t, w.argo.pod(t, w, ""), "main").State; state.Running == nil {
			t.Errorf("the container has not waited: %+v", state)
		}
		release("after")
	}, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		equal(t, "the parameter", w.node(t, "").parameter(t, "done"), "yes")
	})
}

// A guest reports its progress, and the workflow shows it while the guest runs.
func TestWorkflowProgress(t *testing.T) {
	there, here := onNode(t)
	eachArgo(t, func(t *testing.T, a *argo) {
		file := spaceName(t.Name())
		object := asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  volumes: [{name: node, hostPath: {path: `+there+`}}]
  container:
    image: $IMAGE
    command: [$PROBE]
    args: [write, /var/run/argo/progress, "40/100", ",", await, /node/`+file+`]
    volumeMounts: [{name: node, mountPath: /node}]
`)
		// Argo reports once a minute.
		set(t, object, `{"runtimeClassName":"wasm","containers":[{"name":"wait","env":[
			{"name":"ARGO_PROGRESS_FILE_TICK_DURATION","value":"1s"},{"name":"ARGO_PROGRESS_PATCH_TICK_DURATION","value":"1s"}]}]}`, "spec", "podSpecPatch")
		w := a.submit(t, object)
		w.until(t, "shows its progress", func(w workflow) bool { return w.text("status", "progress") == "40/100" })
		put(t, "", here, file)
		w = w.ended(t).is(t, "Succeeded")
		equal(t, "the progress in the end", w.node(t, "").Progress, "100/100")
	})
}

// All containers of the workflow run as a user that is not root.
func TestWorkflowNonRoot(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
securityContext: {runAsNonRoot: true, runAsUser: 8737, fsGroup: 8737}
templates:
- name: main
  steps:
  - - {name: write, template: write}
  - - {name: read, template: read, arguments: {artifacts: [{name: text, from: "{{steps.write.outputs.artifacts.text}}"}]}}
- name: write
  volumes: [{name: work, emptyDir: {}}]
  container: {image: $IMAGE, command: [$PROBE], args: [write, /work/text, mine], volumeMounts: [{name: work, mountPath: /work}]}
  outputs: {artifacts: [{name: text, path: /work/text}]}
- name: read
  inputs: {artifacts: [{name: text, path: /in/text}]}
  container: {image: $IMAGE, command: [$PROBE], args: [read, /in/text]}
  outputs: {parameters: [{name: text, valueFrom: {path: /in/text}}]}
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		equal(t, "the parameter", w.node(t, "[1].read").parameter(t, "text"), "mine")
	})
}

// Arguments that are too long for a command line come in a file.
func TestWorkflowLongArguments(t *testing.T) {
	long := strings.Repeat("0123456789", 15000)
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  container: {image: $IMAGE, command: [$PROBE], args: [args, short, "`+long+`"]}
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		w.printed(t, "", "short\n@/tmp/argo_arg_")
	})
}

// A step whose inputs are known is not run again; its outputs are those of the first run.
func TestWorkflowMemoised(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		cache := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			GenerateName: spaceName(t.Name()), Labels: map[string]string{"workflows.argoproj.io/configmap-type": "Cache"},
		}}
		cache = create(t, a.name, cache)
		u, err := untyped(cache)
		if err != nil {
			t.Fatal(err)
		}
		a.deleted(t, u)
		for _, hit := range []bool{false, true} {
			w := a.run(t, asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  memoize: {key: known, maxAge: 1h, cache: {configMap: {name: `+cache.Name+`}}}
  container: {image: $IMAGE, command: [$PROBE], args: [write, /tmp/out, costly]}
  outputs: {parameters: [{name: out, valueFrom: {path: /tmp/out}}]}
`)).is(t, "Succeeded")
			n := w.node(t, "")
			equal(t, "the parameter", n.parameter(t, "out"), "costly")
			if n.MemoizationStatus == nil || n.MemoizationStatus.Hit != hit {
				t.Errorf("a hit is %+v, want %v", n.MemoizationStatus, hit)
			}
			if pods := len(a.pods(t, w)); pods != 1 && !hit || pods != 0 && hit {
				t.Errorf("it has %d pods", pods)
			}
		}
	})
}
