package argo_test

import (
	"os"
	"strings"
	"syscall"
)

// parameters is a template with output parameters.
func parameters(paths ...string) string {
	var list []string
	for _, path := range paths {
		list = append(list, `{"name":"p","valueFrom":{"path":`+quoted(path)+`,"default":"d"}}`)
	}
	return `{"container":{"volumeMounts":[{"name":"v","mountPath":"/mnt/vol/"},{"name":"w","mountPath":"/mnt/vol/in"}]},"outputs":{"parameters":[` + strings.Join(list, ",") + `]}}`
}

// artifacts is a template with output artifacts.
func artifacts(paths ...string) string {
	var list []string
	for _, path := range paths {
		list = append(list, `{"name":"a","path":`+quoted(path)+`,"archive":{"none":{}},"optional":true}`)
	}
	return `{"script":{"volumeMounts":[{"name":"v","mountPath":"/mnt/vol"}]},"outputs":{"artifacts":[` + strings.Join(list, ",") + `]}}`
}

var nothing = container{command: []string{"sh", "-c", "exit 0"}}

// outputScenes are about output parameters, and which artifacts are saved.
var outputScenes = []scene{
	{name: "parameter", template: parameters("/tmp/p", "/data/deep/er/p", "/tmp/empty"), check: wants(0, "0", "outputs/parameters/tmp/p", "outputs/parameters/data/deep/er/p", "outputs/parameters/tmp/empty"),
		container: script("mkdir -p /data/deep/er; echo 'a\nb' > /tmp/p; echo > /data/deep/er/p; : > /tmp/empty")},
	{name: "parameter of a failed guest", template: parameters("/tmp/p"), container: script("echo x > /tmp/p; exit 3"), check: wants(3, "3", "outputs/parameters/tmp/p")},
	{name: "missing parameter", template: parameters("/tmp/none", "/tmp/p"), container: script("echo x > /tmp/p"), check: wants(0, "0", "outputs/parameters/tmp/p", "!outputs/parameters/tmp/none")},
	{name: "parameter in UTF-8", template: parameters("/tmp/größe 大小"), container: script("echo ü > '/tmp/größe 大小'"), check: wants(0, "0", "outputs/parameters/tmp/größe 大小")},
	{name: "parameter behind links", template: parameters("/tmp/l", "/tmp/d/p", "/tmp/dangling"), container: nothing,
		check: wants(0, "0", "outputs/parameters/tmp/l", "outputs/parameters/tmp/d/p", "!outputs/parameters/tmp/dangling"),
		prepare: func(w world) {
			w.write("/data/p", "inside")
			w.symlink("/data/p", "/tmp/l")
			w.symlink("../../../data", "/tmp/d")
			w.symlink("/nowhere", "/tmp/dangling")
		}},
	{name: "parameters on volumes", template: parameters("/mnt/vol", "/mnt/vol/p", "/mnt/vol/in/p", "/mnt/volume"), container: nothing,
		check:   wants(0, "0", "!outputs/parameters/mnt/vol/p", "!outputs/parameters/mnt/vol/in/p", "outputs/parameters/mnt/volume"),
		prepare: func(w world) { w.write("/mnt/vol/p", "x"); w.write("/mnt/vol/in/p", "x"); w.write("/mnt/volume", "x") }},
	{name: "relative parameter", template: parameters("p", "sub/p"), container: container{dir: "data", command: nothing.command}, check: wants(0, "0", "outputs/parameters/p", "outputs/parameters/sub/p"),
		prepare: func(w world) { w.write("/data/p", "x"); w.write("/data/sub/p", "x") }},
	{name: "parameter saved anew", template: parameters("/tmp/p"), container: script("echo new > /tmp/p"), check: wants(0, "0"),
		prepare: func(w world) { w.write("/var/run/argo/outputs/parameters/tmp/p", "something old"); w.chmodOutputs() }},
	{name: "parameter below a file", template: parameters("/etc/passwd/p"), container: nothing, check: wants(64, "0")},
	{name: "parameters of another container", template: `{"containerSet":{"containers":[{"name":"a"}]},"outputs":{"parameters":[{"name":"p","valueFrom":{"path":"/etc/group"}}],"artifacts":[{"name":"a","path":"/etc"}]}}`,
		container: nothing.named("a"), check: wants(0, "0", "!outputs")},
	{name: "outputs of main in a set", template: `{"containerSet":{"volumeMounts":[{"mountPath":"/data"}],"containers":[{"name":"main","volumeMounts":[{"mountPath":"/etc"}]}]},"outputs":{"parameters":[{"name":"p","valueFrom":{"path":"/etc/group"}},{"name":"q","valueFrom":{"path":"/data/q"}}]}}`,
		container: script("echo q > /data/q"), check: wants(0, "0", "outputs/parameters/etc/group", "!outputs/parameters/data/q")},
	{name: "parameters of other kinds", template: `{"container":{},"outputs":{"parameters":[{"name":"a"},{"name":"b","valueFrom":{"expression":"1"}},{"name":"c","value":"x"}],"artifacts":[{"name":"n"}],"result":"r","exitCode":"0"}}`,
		container: nothing, check: wants(0, "0", "!outputs")},
	{name: "root as a volume", template: `{"container":{"volumeMounts":[{"mountPath":"/"}]},"outputs":{"parameters":[{"name":"a","valueFrom":{"path":"/etc/group"}}]}}`, container: nothing, check: wants(0, "0", "!outputs")},
}

// chmodOutputs gives an old output the rights that argoexec gives it.
func (w world) chmodOutputs() {
	w.must(os.Chmod(w.path("var/run/argo/outputs/parameters/tmp/p"), 0o666))
}

// archiveScenes are about the contents of artifacts.
var archiveScenes = []scene{
	{name: "artifact file", template: artifacts("/data/f"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/f.tgz"),
		prepare: func(w world) { w.write("/data/f", "content\n"); w.age("data") }},
	{name: "artifact empty file", template: artifacts("/data/f"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/f.tgz"),
		prepare: func(w world) { w.write("/data/f", ""); w.age("data") }},
	{name: "artifact made by the guest", template: artifacts("/tmp/d"), check: wants(0, "0", "outputs/artifacts/tmp/d.tgz"),
		container: script(`mkdir -p /tmp/d/e; echo 1 > /tmp/d/e/f; ln -s e/f /tmp/d/l; busybox touch -h -d '2024-05-06 07:08:09' /tmp/d/l /tmp/d/e/f /tmp/d/e /tmp/d`)},
	{name: "artifact directory", template: artifacts("/data/d", "/data/slash/"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/d.tgz", "outputs/artifacts/data/slash.tgz"),
		prepare: func(w world) { w.tree("/data/d"); w.write("/data/slash/x", "y"); w.age("data") }},
	{name: "artifact empty directory", template: artifacts("/data/d"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/d.tgz"),
		prepare: func(w world) { w.must(os.Mkdir(w.path("data/d"), 0o700)); w.age("data") }},
	{name: "artifact long names", template: artifacts("/data/d"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/d.tgz"),
		prepare: func(w world) {
			name := strings.Repeat("name", 30)
			w.write("/data/d/"+name, "120")
			w.write("/data/d/"+name+"/../"+name+"2/"+name+"/"+name, "over 256")
			w.symlink("/"+strings.Repeat(name+"/", 3), "/data/d/link")
			w.age("data")
		}},
	{name: "artifact in UTF-8", template: artifacts("/data/größe 大小"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/größe 大小.tgz"),
		prepare: func(w world) {
			w.write("/data/größe 大小/ünï", "ü")
			w.symlink("ünï", "/data/größe 大小/é")
			w.age("data")
		}},
	{name: "artifact names that are no UTF-8", template: artifacts("/data/d"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/d.tgz"),
		prepare: func(w world) { w.write("/data/d/a\xff", "x"); w.write("/data/d/b\nc", "x"); w.age("data") }},
	{name: "artifact behind a link to a file", template: artifacts("/tmp/l"), container: nothing, check: wants(0, "0", "outputs/artifacts/tmp/l.tgz"),
		prepare: func(w world) { w.write("/data/f", "x"); w.symlink("/data/f", "/tmp/l"); w.age("data") }},
	{name: "artifact behind a link to a directory", template: artifacts("/tmp/l"), container: nothing, check: wants(0, "0", "outputs/artifacts/tmp/l.tgz"),
		prepare: func(w world) { w.write("/data/f", "x"); w.symlink("/data", "/tmp/l"); w.age("tmp") }},
	{name: "artifact below a link to a directory", template: artifacts("/tmp/l/d"), container: nothing, check: wants(0, "0", "outputs/artifacts/tmp/l/d.tgz"),
		prepare: func(w world) { w.write("/data/d/f", "x"); w.symlink("/data", "/tmp/l"); w.age("data") }},
	{name: "missing artifact", template: artifacts("/data/none", "/data/f"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/f.tgz", "!outputs/artifacts/data/none.tgz"),
		prepare: func(w world) { w.write("/data/f", "x"); w.age("data") }},
	{name: "artifact on a volume", template: artifacts("/mnt/vol/f", "/mnt/vol"), container: nothing, check: wants(0, "0", "!outputs"),
		prepare: func(w world) { w.write("/mnt/vol/f", "x") }},
	{name: "artifact with special files", template: artifacts("/data/d"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/d.tgz"),
		prepare: func(w world) {
			w.write("/data/d/f", "x")
			w.must(syscall.Mkfifo(w.path("data/d/fifo"), 0o644))
			w.must(syscall.Mknod(w.path("data/d/null"), syscall.S_IFCHR|0o666, 1<<8|3))
			w.age("data")
		}},
	{name: "relative artifact", template: artifacts("d/f"), container: container{dir: "data", command: nothing.command}, check: wants(0, "0", "outputs/artifacts/d/f.tgz"),
		prepare: func(w world) { w.write("/data/d/f", "x"); w.age("data") }},
	{name: "artifact of 100 MB", template: artifacts("/data/big"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/big.tgz"),
		prepare: func(w world) {
			w.write("/data/big", "begin")
			w.must(os.Truncate(w.path("data/big"), 100<<20))
			w.age("data")
		}},
	{name: "artifact of no known owner", template: artifacts("/data/d"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/d.tgz"),
		prepare: func(w world) {
			w.write("/data/d/worker", "x")
			w.write("/data/d/nobody", "x")
			w.write("/data/d/comment", "x")
			w.must(os.Chown(w.path("data/d/worker"), 1234, 1235))
			w.must(os.Chown(w.path("data/d/nobody"), 4321, 5321))
			w.must(os.Chown(w.path("data/d/comment"), 7, 8))
			w.age("data")
		}},
	{name: "artifact and no passwd", template: artifacts("/data/f"), container: nothing, check: wants(0, "0", "outputs/artifacts/data/f.tgz"),
		prepare: func(w world) {
			w.write("/data/f", "x")
			w.age("data")
			w.must(os.Remove(w.path("etc/passwd")))
			w.must(os.Remove(w.path("etc/group")))
		}},
}

// tree makes a directory with some of everything.
func (w world) tree(dir string) {
	w.write(dir+"/b/file", "b")
	w.write(dir+"/a.txt", strings.Repeat("a", 5000))
	w.write(dir+"/a/z", "z")
	w.write(dir+"/.hidden", "")
	w.write(dir+"/modes", "x")
	w.must(os.Chmod(w.path(dir+"/modes"), 0o4751|os.ModeSetuid))
	w.write(dir+"/closed/secret", "x")
	w.must(os.Chmod(w.path(dir+"/closed/secret"), 0))
	w.must(os.Chmod(w.path(dir+"/closed"), 0o1700|os.ModeSticky))
	w.must(os.Link(w.path(dir+"/a.txt"), w.path(dir+"/hard")))
	w.symlink("a.txt", dir+"/relative")
	w.symlink("/etc/passwd", dir+"/absolute")
	w.symlink("../../../../../../etc/passwd", dir+"/out")
	w.symlink("nowhere", dir+"/dangling")
	w.symlink("a", dir+"/todir")
	w.must(os.MkdirAll(w.path(dir+"/empty"), 0o755))
}
