package argo_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inputs is a template with input artifacts, "name=path" each.
func inputs(artifacts ...string) string {
	var list []string
	for _, artifact := range artifacts {
		name, path, _ := strings.Cut(artifact, "=")
		list = append(list, `{"name":`+quoted(name)+`,"path":`+quoted(path)+`}`)
	}
	return `{"inputs":{"artifacts":[` + strings.Join(list, ",") + `]},"container":{"volumeMounts":[{"name":"v","mountPath":"/mnt/vol"}]}}`
}

func prints(text string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		t.Helper()
		if o.stdout != text {
			t.Errorf("the guest printed %q, want %q", o.stdout, text)
		}
	}
}

// ready is the end of a preparation by Argo's supervisor.
func ready(files ...string) func(world) {
	return func(w world) {
		for _, file := range files {
			name, content, _ := strings.Cut(file, "=")
			w.write(name, content)
		}
		w.write("/var/run/argo/status", "READY\n")
	}
}

// TestInitless has what Argo 4.1 does in pods without init containers. There is no
// argoexec of that version among the pinned tools: the sources are upstream's
// docs/initless-pod.md, cmd/argoexec/commands/{emissary,supervisor}.go of v4.1.2.
func TestInitless(t *testing.T) {
	const wait = "ARGO_WAIT_FOR_READY=true"
	staged := func(name string) string { return "/argo/inputs/artifacts/" + name }
	scenes := []scene{
		{name: "ready", template: plain, container: script("exit 3"), check: wants(3, "3"), prepare: ready()},
		{name: "ready later", container: script("cat /data/late"), check: both(wants(0, "0"), prints("late")),
			prepare: func(w world) { w.write("/var/run/argo/status", "RUNNING\n") },
			during: func(w world, _ signaller) {
				w.awaitLog("waiting for the supervisor")
				w.write("/data/late", "late")
				w.write("/var/run/argo/template", plain)
				w.write("/var/run/argo/status.new", "READY\n")
				w.must(os.Rename(w.path("var/run/argo/status.new"), w.path("var/run/argo/status")))
			}},
		{name: "failed", template: plain, container: script("echo no"), check: both(wants(65, "65"), prints(""), says("no such bucket")),
			prepare: func(w world) { w.write("/var/run/argo/status", "FAILED\nno such bucket\n") }},
		{name: "silent", template: plain, container: script("echo no"), check: both(wants(65, "65"), prints(""), says("has said nothing for 30s")),
			prepare: func(w world) {
				w.write("/var/run/argo/status", "RUNNING\n")
				old := time.Now().Add(-31 * time.Second)
				w.must(os.Chtimes(w.path("var/run/argo/status"), old, old))
			}},
		{name: "empty status grows old", template: plain, container: script("echo no"), check: both(wants(65, "65"), prints("")),
			prepare: func(w world) {
				w.write("/var/run/argo/status", "")
				w.must(os.Chtimes(w.path("var/run/argo/status"), longAgo, longAgo))
			}},
		{name: "status is a pipe", template: plain, container: script("echo no"), check: both(wants(65, "65"), says("a named pipe")),
			prepare: func(w world) { w.must(syscall.Mkfifo(w.path("var/run/argo/status"), 0o666)) }},
		{name: "SIGTERM", template: plain, container: script("echo no"), check: both(wants(143, "64"), prints("")),
			during: func(w world, send signaller) { w.awaitLog("waiting for the supervisor"); send(syscall.SIGTERM) }},

		{name: "staged", template: inputs("f=/data/f", "d=/tmp/new/deep/d", "optional=/tmp/no", "nowhere="), check: both(wants(0, "0"), prints("../argo/inputs/artifacts/f file x")),
			container: script("busybox readlink -n /data/f; cat /data/f /tmp/new/deep/d/x; [ ! -e /tmp/no ]"),
			prepare:   ready(staged("f")+"= file ", staged("d/x")+"=x", staged("nowhere")+"=")},
		{name: "staged in place of the image's", template: inputs("f=/data/f", "d=/data/d"), container: script("cat /data/f /data/d/x; busybox ls /data/d"), check: both(wants(0, "0"), prints("newxx\n")),
			prepare: ready(staged("f")+"=new", staged("d/x")+"=x", "/data/f=old", "/data/d/old/er=old")},
		{name: "staged in place of a link", template: inputs("f=/data/f"), container: script("cat /data/f /data/old"), check: both(wants(0, "0"), prints("newold")),
			prepare: func(w world) { w.symlink("old", "/data/f"); ready(staged("f")+"=new", "/data/old=old")(w) }},
		{name: "staged behind links", template: inputs("f=/data/abs/f", "g=/data/rel/g", "h=/data/out/h"), container: script("cat /data/abs/f /data/rel/g /etc/h; for f in /tmp/f /tmp/g /etc/h; do busybox readlink $f; done"),
			check: both(wants(0, "0"), prints("FGH../argo/inputs/artifacts/f\n../argo/inputs/artifacts/g\n../argo/inputs/artifacts/h\n")),
			prepare: func(w world) {
				w.symlink("/tmp", "/data/abs")
				w.symlink("../tmp/./x/..", "/data/rel")
				w.write("/tmp/x/y", "")
				w.symlink("../../../../../../../etc", "/data/out")
				ready(staged("f")+"=F", staged("g")+"=G", staged("h")+"=H")(w)
			}},
		{name: "staged and saved again", template: `{"inputs":{"artifacts":[{"name":"f","path":"/data/f"}]},"container":{},"outputs":{"artifacts":[{"name":"o","path":"/data/f"}]}}`,
			container: script("echo changed >> /data/f"), check: wants(0, "0", "outputs/artifacts/data/f.tgz"), prepare: ready(staged("f") + "=f")},
		{name: "new on a volume", template: inputs("f=/mnt/vol/f"), container: script("cat /mnt/vol/f"), check: both(wants(0, "0"), prints("new")), prepare: ready(staged("f")+"=new", "/mnt/vol/x=")},
		{name: "replaces what is on a volume", template: inputs("f=/mnt/vol/f"), container: script("echo no"), check: both(wants(65, "65"), prints("")),
			prepare: ready(staged("f")+"=new", "/mnt/vol/f=old"),
			during: func(w world, _ signaller) {
				w.awaitLog("on a volume")
				if data, err := os.ReadFile(w.path("mnt/vol/f")); err != nil || string(data) != "old" {
					w.t.Errorf("the file on the volume holds %q, %v", data, err)
				}
			}},
		{name: "replaces what is on a volume behind a link", template: inputs("f=/data/l/f"), container: script("echo no"), check: both(wants(65, "65"), says("on a volume")),
			prepare: func(w world) { w.symlink("/mnt/vol", "/data/l"); ready(staged("f")+"=new", "/mnt/vol/f=old")(w) }},
		{name: "replaces a directory with a volume", template: inputs("f=/mnt"), container: script("echo no"), check: both(wants(65, "65"), says("on a volume")),
			prepare: ready(staged("f")+"=new", "/mnt/vol/f=old")},
		{name: "replaces the root", template: inputs("f=/"), container: script("echo no"), check: both(wants(65, "65"), says("on a volume")), prepare: ready(staged("f") + "=new")},
		{name: "link loop", template: inputs("f=/data/l/f"), container: script("echo no"), check: both(wants(65, "65"), says("too many links")),
			prepare: func(w world) { w.symlink("m", "/data/l"); w.symlink("l", "/data/m"); ready(staged("f") + "=new")(w) }},
		{name: "bad name", template: inputs("../../../etc=/data/f"), container: script("echo no"), check: both(wants(65, "65"), says("is no name")), prepare: ready()},
		{name: "working directory", template: inputs("d=/data"), container: container{dir: "data", command: []string{"cat", "x"}}, check: both(wants(0, "0"), prints("X")), prepare: ready(staged("d/x") + "=X")},
		{name: "working directory is a file", template: inputs("d=/data"), container: container{dir: "data", command: []string{"cat", "x"}}, check: both(wants(65, "65"), says("working directory")), prepare: ready(staged("d") + "=X")},
		{name: "not staged for others", template: `{"inputs":{"artifacts":[{"name":"f","path":"/data/f"}]},"container":{},"sidecars":[{"name":"s"}]}`, container: script("[ ! -e /data/f ]").named("s"), check: wants(0, "0"), prepare: ready(staged("f") + "=f")},
	}
	for i := range scenes {
		scenes[i].env = append(scenes[i].env, wait)
	}
	runAll(t, append(scenes,
		scene{name: "template in the environment", container: script("exit 3").with("ARGO_TEMPLATE=" + parameters("/etc/group")), check: wants(3, "3", "outputs/parameters/etc/group")},
		scene{name: "template in a ConfigMap", container: script("exit 3").with("ARGO_TEMPLATE=offloaded"), check: wants(3, "3", "outputs/parameters/etc/group"),
			prepare: func(w world) { w.write("/argo/config/ARGO_TEMPLATE", parameters("/etc/group")) }},
		scene{name: "template in the volume first", template: plain, container: script("exit 3").with("ARGO_TEMPLATE={"), check: wants(3, "3")},
	))
}
