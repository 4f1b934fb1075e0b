package step_test

import (
	"archive/tar"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/tests3"
)

// outputArtifacts returns a template with output artifacts, whose repository is in S3.
func outputArtifacts(list string) string { return withArtifacts("", list, "") }

// withArtifacts returns a template with input and output artifacts, and with more fields of its archiveLocation.
func withArtifacts(inputs, outputs, location string) string {
	return `{"name":"a","inputs":{"artifacts":[` + inputs + `]},"outputs":{"artifacts":[` + outputs + `]},"metadata":{},"container":{"name":"","image":"i","resources":{},` +
		`"volumeMounts":[{"name":"v","mountPath":"/vol"}]},"archiveLocation":{` + location + inS3("wf-1/pod-1") + `}}`
}

// output returns an output artifact named a with a path and more fields.
func output(path, more string) string {
	if more != "" {
		more = "," + more
	}
	return `{"name":"a","path":"` + path + `"` + more + `}`
}

const (
	asIs   = `"archive":{"none":{}}`
	asZip  = `"archive":{"zip":{}}`
	asTar  = `"archive":{"tar":{}}`
	option = `"optional":true`
)

// artifact is the path of what the emissary leaves for an output artifact.
func artifact(path string) string { return "outputs/artifacts" + path + ".tgz" }

// left returns a function that leaves a tarball as the emissary does.
func left(path string, entries ...tar.Header) func(*world) {
	return file(artifact(path), tgz(entries...))
}

// folder is a tarball of a folder with one of everything that is harmless.
func folder(name string) []tar.Header {
	return []tar.Header{
		tarDir(name), tarFile(name+"/b.txt", "b"), tarDir(name + "/b"), tarFile(name+"/b/c.html", "<html>"), tarDir(name + "/empty"),
		tarLink(name+"/link", "b.txt"), tarLink(name+"/nowhere", "x"), {Name: name + "/fifo", Typeflag: tar.TypeFifo, Mode: 0o600}, tarFile(name+"/zero", ""),
	}
}

// onVolume leaves a folder with one of everything on the volume, and a link to it.
func onVolume(w *world) {
	w.write("mainctrfs/vol/d/b.txt", "b")
	w.write("mainctrfs/vol/d/b/c.html", "<html>")
	w.write("mainctrfs/vol/d/b/ü ?", "x")
	w.write("mainctrfs/vol/d/zero", "")
	w.must(os.MkdirAll(w.path("mainctrfs/vol/d/empty"), 0o750))
	w.symlink("b.txt", "mainctrfs/vol/d/link")
	w.symlink("/var/run/secrets/kubernetes.io/serviceaccount", "mainctrfs/vol/d/out")
	w.symlink("d", "mainctrfs/vol/link")
	w.symlink("d/b.txt", "mainctrfs/vol/link.txt")
	w.must(os.Chmod(w.path("mainctrfs/vol/d/b.txt"), 0o4751))
	w.must(os.Lchown(w.path("mainctrfs/vol/d/b.txt"), 1000, 1001))
	w.must(os.Lchown(w.path("mainctrfs/vol/d/link"), 1001, 1000))
	// The names of owners are those that this container has.
	w.write("etc/passwd", "root:x:0:0::/:\nalice:x:1000:1000::/:\n")
	w.write("etc/group", "root:x:0:\nwheel:x:1001:\n")
	w.write("mainctrfs/etc/passwd", "mallory:x:0:0::/:\nmallory:x:1000:1000::/:\n")
}

// manyOutputs are artifacts of which manyArtifacts leaves all but two.
var manyOutputs = func() string {
	var list []string
	for i := range 12 {
		list = append(list, fmt.Sprintf(`{"name":"m%d","path":"/tmp/%d"}`, i, i))
	}
	return strings.Join(list, ",")
}()

func manyArtifacts(w *world) {
	for i := range 12 {
		if i != 7 && i != 10 {
			w.argo(artifact(fmt.Sprintf("/tmp/%d", i)), tgz(tarFile("x", fmt.Sprintf("content of %d", i))))
		}
	}
}

// large is more than one part of an upload.
var large = strings.Repeat("0123456789abcdef", 20<<20/16+3)

// noise is larger than the disk of fullTmp, and stays so when it is packed.
var noise = func() string {
	text := make([]byte, 3<<20)
	_, _ = rand.Read(text)
	return string(text)
}()

// fullTmp gives what is below /tmp a disk of a megabyte.
func fullTmp(w *world) { smallTmp(w, "1m") }

func smallTmp(w *world, size string) {
	w.must(os.Mkdir(w.path("tmp/argo"), 0o755))
	w.must(unix.Mount("tmpfs", w.path("tmp/argo"), "tmpfs", 0, "size="+size))
	w.t.Cleanup(func() { w.must(unix.Unmount(w.path("tmp/argo"), unix.MNT_DETACH)) })
}

// largeNoise leaves more noise than an upload's part on a volume.
func largeNoise(w *world) { w.write("mainctrfs/vol/x", strings.Repeat(noise, 8)) }

// stores returns a check that an object has some text in its description.
func stores(key, text string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		t.Helper()
		if !strings.Contains(o.objects[key], text) || o.objects[key] == "" {
			t.Errorf("object %s is %q, want %q; all: %q", key, o.objects[key], text, o.objects)
		}
	}
}

// storesNothing checks that there is no object and no part of one, and that no artifact is reported.
func storesNothing(t *testing.T, o outcome) {
	t.Helper()
	if len(o.objects) > 0 {
		t.Errorf("there are objects: %q", o.objects)
	}
	reports("outputs:map[]")(t, o)
}

// failing answers uploads with an error.
func failing(status int, code string) s3Fault {
	return func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		return s3Failure(w, status, code)
	}
}

// takes stands for a web server that is put a file at /a, and answers with a status.
func takes(status int) s3Fault {
	return func(_ int, w http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		if name, password, ok := r.BasicAuth(); ok && (name != tests3.Access || password != tests3.Secret || r.Header.Get("X-Test") != "1") {
			status = http.StatusUnauthorized
		}
		if r.Method != http.MethodPut || len(r.TransferEncoding) != 1 || !strings.HasPrefix(describe(body), "tar:") {
			status = http.StatusBadRequest
		}
		w.WriteHeader(status)
		return true
	}
}

var outputScenes = []scene{
	{
		// It takes half a minute, so it comes first.
		name: "S3 that stays busy", template: outputArtifacts(output("/tmp/a", "")), prepare: ended(left("/tmp/a", tarFile("a", "x"))), s3: failing(503, "SlowDown"),
		check: both(exits(64, "timed out waiting for the condition: failed to put file: SlowDown, says the test.; "), storesNothing),
	},
	{
		name: "output artifact", template: outputArtifacts(output("/tmp/a.txt", "")), prepare: ended(left("/tmp/a.txt", tarFile("a.txt", "content"))),
		check: both(exits(0, ""), reports("key:wf-1/pod-1/a.tgz"), stores("wf-1/pod-1/a.tgz", "content")),
	},
	{
		name: "output artifact as a tarball of a level", template: outputArtifacts(output("/tmp/a.txt", `"archive":{"tar":{"compressionLevel":12}}`)),
		prepare: ended(left("/tmp/a.txt", tarFile("a.txt", "content"))),
		check:   both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "content")),
	},
	{
		name: "output artifact that is no tarball", template: outputArtifacts(output("/tmp/a", "")), prepare: ended(file(artifact("/tmp/a"), "x")),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "x")),
	},
	{
		name: "output artifact that is empty", template: outputArtifacts(output("/tmp/a", "")), prepare: ended(file(artifact("/tmp/a"), "")),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", `""`)),
	},
	{
		name: "output artifact of an unclean path", template: outputArtifacts(output("/tmp/./d//", "")), prepare: ended(left("/tmp/d", folder("d")...)),
		check: both(exits(0, ""), reports("path:/tmp/d ")),
	},
	{
		name: "output artifact with all fields", prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		template: outputArtifacts(output("/tmp/a", asTar+`,"mode":420,"globalName":"g","recurseMode":true,"optional":true,"deleted":true,"subPath":"s","from":"f",`+
			`"fromExpression":"e","artifactGC":{"strategy":"OnWorkflowDeletion","podMetadata":{"labels":{"a":"b"}},"serviceAccountName":"s"}`)),
		check: both(exits(0, ""), reports("strategy:OnWorkflowDeletion")),
	},
	{
		name: "output artifact with a key", template: outputArtifacts(output("/tmp/a", `"s3":{"key":"my key/ü+%2F.gz"}`)), prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		check: both(exits(0, ""), stores("my key/ü+%2F.gz", "tar:")),
	},
	{
		name: "output artifact in another store", template: `{"outputs":{"artifacts":[` + output("/tmp/a", inS3("k")) + `]},"container":{"image":"i"}}`,
		prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		check:   both(exits(0, ""), stores("k", "tar:"), reports("endpoint:"+s3Endpoint)),
	},
	{
		name: "output artifact of a bucket without a key", template: outputArtifacts(output("/tmp/a", `"s3":{"bucket":"another"}`)),
		prepare: ended(left("/tmp/a", tarFile("a", "x"))), check: exits(0, ""),
	},
	{
		name: "output artifact with a key and a part of a store", template: outputArtifacts(output("/tmp/a", `"s3":{"bucket":"another","key":"k"}`)),
		prepare: ended(left("/tmp/a", tarFile("a", "x"))), check: both(exits(0, ""), stores("k", "tar:")),
	},
	{
		name: "output artifact as it is", template: outputArtifacts(output("/tmp/page.html", asIs)), prepare: ended(left("/tmp/page.html", tarFile("page.html", "<html>"))),
		check: both(exits(0, ""), stores("wf-1/pod-1/page.html", "text/html")),
	},
	{
		name: "output artifact without a strategy", template: outputArtifacts(output("/tmp/x.json", `"archive":{}`)), prepare: ended(left("/tmp/x.json", tarFile("x.json", "{}"))),
		check: both(exits(0, ""), stores("wf-1/pod-1/x.json", "application/json")),
	},
	{
		name: "output folder as it is", template: outputArtifacts(output("/tmp/d", asIs)), prepare: ended(left("/tmp/d", folder("d")...)),
		check: both(exits(0, ""), stores("wf-1/pod-1/d/b/c.html", "text/html"), reports("key:wf-1/pod-1/d]")),
	},
	{
		name: "output folder as it is, with a key", template: outputArtifacts(output("/tmp/d", asIs+`,"s3":{"key":"k/"}`)), prepare: ended(left("/tmp/d", folder("d")...)),
		check: both(exits(0, ""), stores("k/b.txt", `"b"`)),
	},
	{
		name: "output folder that is empty", template: outputArtifacts(output("/tmp/d", asIs)), prepare: ended(left("/tmp/d", tarDir("d"))),
		check: both(exits(0, ""), reports("key:wf-1/pod-1/d")),
	},
	{
		name: "output of several folders as it is", template: outputArtifacts(output("/tmp/d", asIs)), prepare: ended(left("/tmp/d", tarFile("a", "a"), tarFile("/b/c", "c"))),
		check: both(exits(0, ""), stores("wf-1/pod-1/d/b/c", "c")),
	},
	{
		name: "output of nothing as it is", template: outputArtifacts(output("/tmp/d", asIs)), prepare: ended(left("/tmp/d")),
		check: exits(0, ""),
	},
	{
		name: "output as it is that is no tarball", template: outputArtifacts(output("/tmp/d", asIs)), prepare: ended(file(artifact("/tmp/d"), strings.Repeat("x", 100))),
		check: both(exits(64, "gzip: invalid header; "), storesNothing),
	},
	{
		name: "output as it is that is cut off", template: outputArtifacts(output("/tmp/d", asIs)), prepare: ended(file(artifact("/tmp/d"), tgz(tarFile("d", large))[:2000])),
		check: both(exits(64, "unexpected EOF; "), storesNothing),
	},
	{
		name: "output as it is with a file above", template: outputArtifacts(output("/tmp/d", asIs)), prepare: ended(left("/tmp/d", tarDir("d"), tarFile("d/../../x", "x"))),
		check: both(exits(64, "illegal file path: d/../../x; "), storesNothing),
	},
	{
		name: "output as it is with a link above", template: outputArtifacts(output("/tmp/d", asIs)), prepare: ended(left("/tmp/d", tarDir("d"), tarLink("d/l", "../../x"))),
		check: both(exits(64, "illegal symlink target: d/l -> ../../x; "), storesNothing),
	},
	{
		name: "output as it is with an absolute link", template: outputArtifacts(output("/tmp/d", asIs)), prepare: ended(left("/tmp/d", tarDir("d"), tarLink("d/l", "/etc/passwd"))),
		check: both(exits(64, "illegal symlink target: d/l -> /etc/passwd; "), storesNothing),
	},
	{
		name: "output as it is with a file behind links", template: outputArtifacts(output("/tmp/d", asIs)),
		prepare: ended(left("/tmp/d", tarDir("a"), tarDir("d/e"), tarLink("d/e/l", "../../a"), tarLink("d/e/out", "l/../../evil"), tarFile("d/e/out/x", "x"))),
		check:   both(storesNothing, func(t *testing.T, o outcome) { exits(64, o.message)(t, o) }), without: versions, // for each version says so in other words
	},
	{
		name: "output folder as a zip file", template: outputArtifacts(output("/tmp/d", asZip)), prepare: ended(left("/tmp/d", folder("d")...)),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.zip", "a/b/c.html")),
	},
	{
		name: "output file as a zip file", template: outputArtifacts(output("/tmp/a", asZip)), prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.zip", "/tmp/argo/outputs/artifacts/a,")),
	},
	{
		name: "output file of another name as a zip file", template: outputArtifacts(output("/tmp/b", asZip)), prepare: ended(left("/tmp/b", tarFile("b", "x"))),
		check: both(exits(64, "stat /tmp/argo/outputs/artifacts/a: no such file"), storesNothing),
	},
	{
		name: "optional output file of another name as a zip file", template: outputArtifacts(output("/tmp/b", asZip+","+option)), prepare: ended(left("/tmp/b", tarFile("b", "x"))),
		check: both(exits(0, ""), storesNothing),
	},
	{
		name: "output artifact that is missing", template: outputArtifacts(output("/tmp/a", "")), prepare: ended(),
		check: both(exits(64, "open /var/run/argo/outputs/artifacts/tmp/a.tgz: no such file or directory; "), storesNothing),
	},
	{
		name: "optional output artifact that is missing", template: outputArtifacts(output("/tmp/a", option)), prepare: ended(),
		check: both(exits(0, ""), storesNothing),
	},
	{
		name: "output artifact that is a directory", template: outputArtifacts(output("/tmp/a", option)), prepare: ended(file(artifact("/tmp/a")+"/x", "")),
		check: both(exits(64, "is a directory; "), storesNothing), without: versions, // they speak of another file
	},
	{
		name: "output artifacts of which two are missing", prepare: ended(left("/tmp/a", tarFile("a", "x")), left("/tmp/c", tarFile("c", "x"))),
		template: outputArtifacts(`{"name":"a","path":"/tmp/a"},{"name":"b","path":"/tmp/b"},{"name":"c","path":"/tmp/c"},{"name":"d","path":"/tmp/d"},{"name":"e","path":"/tmp/e","optional":true}`),
		check:    both(exits(64, "b.tgz: no such file or directory; open"), reports("name:c"), stores("wf-1/pod-1/c.tgz", "tar:")),
	},
	{
		name: "output artifacts with the same key", prepare: ended(left("/tmp/a/x", tarFile("x", "1")), left("/tmp/b/x", tarFile("x", "2")), left("/tmp/c/x", tarFile("x", "3"))),
		template: outputArtifacts(output("/tmp/a/x", asIs) + `,{"name":"b","path":"/tmp/b/x","archive":{"none":{}}},{"name":"c","path":"/tmp/c/x","archive":{"none":{}}}`),
		check:    both(exits(0, ""), stores("wf-1/pod-1/x", `"3"`)),
	},
	{
		name: "many output artifacts and logs", prepare: ended(manyArtifacts, file("ctr/main/combined", "out")),
		template: withArtifacts("", manyOutputs, `"archiveLogs":true,`),
		check:    both(exits(64, "/7.tgz: no such file or directory; open /var/run"), reports("name:m9"), reports("name:main-logs"), stores("wf-1/pod-1/m9.tgz", "content of 9")),
	},
	{
		name: "output artifact and a parameter that is missing", prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		template: strings.Replace(outputArtifacts(output("/tmp/a", "")+`,{"name":"b","path":"/tmp/b"}`), `"outputs":{`, `"outputs":{"parameters":[`+pathParameter+`],`, 1),
		check:    both(exits(64, "open /var/run/argo/outputs/parameters/tmp/p"), reports("name:a")),
	},
	{
		name: "output artifact and a result", prepare: ended(left("/tmp/a", tarFile("a", "x")), file("ctr/main/stdout", "out")), env: []string{withResult},
		template: outputArtifacts(output("/tmp/a", "")), check: both(exits(0, ""), reports("result:out")),
	},
	{
		name: "output on a volume", template: outputArtifacts(output("/vol/d", "")), prepare: ended(onVolume),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "d/b/c.html"), stores("wf-1/pod-1/a.tgz", "Uname:alice Gname:wheel")),
	},
	{
		name: "output on a volume of level 0", template: outputArtifacts(output("/vol/d", `"archive":{"tar":{"compressionLevel":0}}`)), prepare: ended(onVolume),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "d/b/c.html")),
	},
	{
		name: "output on a volume of level 12", template: outputArtifacts(output("/vol/d", `"archive":{"tar":{"compressionLevel":12}}`)), prepare: ended(onVolume),
		check: both(exits(64, "gzip: invalid compression level: 12; "), storesNothing),
	},
	{
		name: "output on a volume without a strategy", template: outputArtifacts(output("/vol/d", `"archive":{}`)), prepare: ended(onVolume),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "d/b/c.html")),
	},
	{
		name: "output file on a volume", template: outputArtifacts(output("/vol/d/b.txt", asTar)), prepare: ended(onVolume),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "b.txt")),
	},
	{
		name: "output link on a volume", template: outputArtifacts(output("/vol/link", "")), prepare: ended(onVolume),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "link")),
	},
	{
		name: "output link to a file on a volume", template: outputArtifacts(output("/vol/link.txt", "")), prepare: ended(onVolume),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "link.txt")),
	},
	{
		name: "output on a volume that is missing", template: outputArtifacts(output("/vol/x", "")), prepare: ended(onVolume),
		check: both(exits(64, "stat /mainctrfs/vol/x: no such file or directory; "), storesNothing),
	},
	{
		name: "optional output on a volume that is missing", template: outputArtifacts(output("/vol/x", option)), prepare: ended(onVolume),
		check: both(exits(0, ""), storesNothing),
	},
	{
		name: "optional output on a volume below a file", template: outputArtifacts(output("/vol/d/b.txt/x", option)), prepare: ended(onVolume),
		check: both(exits(64, "stat /mainctrfs/vol/d/b.txt/x: not a directory; "), storesNothing),
	},
	{
		name: "output on a volume as it is", template: outputArtifacts(output("/vol/d", asIs)), prepare: ended(onVolume),
		check: both(exits(0, ""), stores("wf-1/pod-1/d/b/c.html", "text/html"), stores("wf-1/pod-1/d/b/ü ?", "x")),
	},
	{
		name: "output file on a volume as it is", template: outputArtifacts(output("/vol/d/b/c.html", asIs)), prepare: ended(onVolume),
		check: both(exits(0, ""), stores("wf-1/pod-1/c.html", "text/html")),
	},
	{
		name: "output link on a volume as it is", template: outputArtifacts(output("/vol/link", asIs)), prepare: ended(onVolume),
		check: both(exits(0, ""), stores("wf-1/pod-1/link/b.txt", "b")),
	},
	{
		name: "output on a volume as it is that is missing", template: outputArtifacts(output("/vol/x", asIs)), prepare: ended(onVolume),
		check: both(exits(64, "/vol/x no such file or directory; "), storesNothing),
	},
	{
		name: "optional output on a volume as it is that is missing", template: outputArtifacts(output("/vol/x", asIs+","+option)), prepare: ended(onVolume),
		check: both(exits(0, ""), storesNothing),
	},
	{
		name: "output on a volume by an absolute link", template: outputArtifacts(output("/vol/abs", asIs) + `,{"name":"b","path":"/vol/abs"},{"name":"c","path":"/vol/abs","archive":{"zip":{}}}`),
		prepare: ended(onVolume, func(w *world) { w.symlink("/vol/d/b.txt", "mainctrfs/vol/abs") }),
		check:   both(exits(0, ""), stores("wf-1/pod-1/abs", `"b"`), stores("wf-1/pod-1/b.tgz", "abs"), stores("wf-1/pod-1/c.zip", "/mainctrfs/vol/abs")),
		without: versions, // they look for it in their own container
	},
	{
		name: "output on a volume as a zip file", template: outputArtifacts(output("/vol/d", asZip)), prepare: ended(onVolume),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.zip", "d/b/c.html")),
	},
	{
		name: "output file on a volume as a zip file", template: outputArtifacts(output("/vol/d/b.txt", asZip)), prepare: ended(onVolume),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.zip", "/mainctrfs/vol/d/b.txt")),
	},
	{
		name: "output link on a volume as a zip file", template: outputArtifacts(output("/vol/link", asZip)), prepare: ended(onVolume),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.zip", "link")),
	},
	{
		name: "output on a volume as a zip file that is missing", template: outputArtifacts(output("/vol/x", asZip)), prepare: ended(onVolume),
		check: both(exits(64, "stat /mainctrfs/vol/x: no such file or directory; "), storesNothing),
	},
	{
		name: "output on a volume with a FIFO and a device", template: outputArtifacts(output("/vol/d", "") + `,{"name":"z","path":"/vol/d","archive":{"zip":{}}}`),
		prepare: ended(onVolume, func(w *world) { w.fifo("mainctrfs/vol/d/fifo"); w.device("mainctrfs/vol/d/zero-device") }),
		check:   both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "d/fifo"), stores("wf-1/pod-1/z.zip", "d/fifo")),
	},
	{
		name: "output on a volume with a socket", template: outputArtifacts(output("/vol/d", "")), prepare: ended(onVolume, func(w *world) { w.socket("mainctrfs/vol/d/socket") }),
		check: both(exits(64, "d/socket: archive/tar: sockets not supported; "), storesNothing), without: versions, // they do not say which
	},
	{
		name: "output artifact at an input artifact", prepare: ended(onVolume, func(w *world) { w.write("mainctrfs/in/x", "x") }),
		template: withArtifacts(`{"name":"i","path":"/in","raw":{"data":""}},{"name":"o","path":"/maybe","optional":true}`,
			output("/in/x", asIs)+`,{"name":"b","path":"/in"},{"name":"c","path":"/maybe","optional":true}`, ""),
		check: both(exits(0, ""), stores("wf-1/pod-1/x", "x"), stores("wf-1/pod-1/b.tgz", "in/x")),
	},
	{
		name: "output parameter at an input artifact", prepare: ended(func(w *world) { w.write("mainctrfs/in/x", "x") }),
		template: `{"name":"a","inputs":{"artifacts":[{"name":"i","path":"/in","raw":{"data":""}}]},"outputs":{"parameters":[{"name":"p","valueFrom":{"path":"/in/x"}}]},"container":{"name":"","image":"i"}}`,
		check:    both(exits(0, ""), reports("value:x")),
	},
	{
		name: "large output", template: outputArtifacts(output("/tmp/d", asIs) + `,{"name":"v","path":"/vol/x.txt","archive":{"none":{}}}`),
		prepare: ended(left("/tmp/d", tarDir("d"), tarFile("d/large.bin", large)), func(w *world) { w.write("mainctrfs/vol/x.txt", large) }),
		during:  func(w *world) { w.awaitEnd(); w.removeAll("mainctrfs/vol"); w.removeAll("var/run/argo/outputs") },
		check:   both(exits(0, ""), stores("wf-1/pod-1/d/large.bin", "bytes"), stores("wf-1/pod-1/x.txt", "text/plain")),
	},
	{
		name: "large output on a volume", template: outputArtifacts(output("/vol/x", "") + `,{"name":"z","path":"/vol/x","archive":{"zip":{}}}`),
		prepare: ended(largeNoise), check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", " in parts 2"), stores("wf-1/pod-1/z.zip", " in parts 2")),
	},
	{
		name: "logs", template: withArtifacts("", output("/tmp/a", ""), `"archiveLogs":true,`), prepare: ended(left("/tmp/a", tarFile("a", "x")), file("ctr/main/combined", "out\nerr\n")),
		check: both(exits(0, ""), reports("name:main-logs s3:map[key:wf-1/pod-1/main.log]"), stores("wf-1/pod-1/main.log", "out")),
	},
	{
		name: "logs that are empty", template: withArtifacts("", "", `"archiveLogs":true,`), prepare: ended(file("ctr/main/combined", "")),
		check: both(exits(0, ""), reports("name:main-logs")),
	},
	{
		name: "logs that are missing", template: withArtifacts("", output("/tmp/a", ""), `"archiveLogs":true,`), prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		check: both(exits(64, "open /var/run/argo/ctr/main/combined: no such file or directory"), reports("name:a")),
	},
	{
		name: "logs and an artifact that is missing", template: withArtifacts("", output("/tmp/a", ""), `"archiveLogs":true,`), prepare: ended(file("ctr/main/combined", "out")),
		check: both(exits(64, "a.tgz: no such file or directory; "), reports("name:main-logs")),
	},
	{
		name:     "logs of a container set",
		template: strings.Replace(setTemplate, `"metadata"`, `"archiveLocation":{"archiveLogs":true,`+inS3("k")+`},"metadata"`, 1),
		prepare: func(w *world) {
			w.argo("ctr/one/combined", "1")
			w.argo("ctr/main/combined", "2")
			w.exit("one", "0")
			w.exit("main", "0")
		},
		check: both(exits(0, ""), stores("k/one.log", "1"), stores("k/main.log", "2"), reports("name:main-logs")),
	},
	{
		name:     "logs of a container set of which one is missing",
		template: strings.Replace(setTemplate, `"metadata"`, `"archiveLocation":{"archiveLogs":true,`+inS3("k")+`},"metadata"`, 1),
		prepare: func(w *world) {
			w.argo("ctr/main/combined", "2")
			w.exit("one", "0")
			w.exit("main", "0")
		},
		check: both(exits(64, "open /var/run/argo/ctr/one/combined"), stores("k/main.log", "2"), reports("name:main-logs")),
	},
	{
		name: "output as it is on a full disk", template: outputArtifacts(output("/tmp/d", asIs)), prepare: ended(left("/tmp/d", tarDir("d"), tarFile("d/large", large)), fullTmp),
		check: both(exits(64, "write /tmp/argo/outputs/artifacts/a.tmpdir/d/large: no space left on device; "), storesNothing),
	},
	{
		name: "output as a zip file on a full disk", template: outputArtifacts(output("/vol/x", asZip)),
		prepare: ended(func(w *world) { w.write("mainctrfs/vol/x", noise) }, fullTmp),
		check:   both(exits(64, "write /tmp/argo/outputs/artifacts/a.zip: no space left on device; "), storesNothing),
	},
	{
		name: "output as a tarball on a full disk", template: outputArtifacts(output("/vol/x", "")),
		prepare: ended(func(w *world) { w.write("mainctrfs/vol/x", noise) }, fullTmp),
		check:   both(exits(64, "write /tmp/argo/outputs/artifacts/a.tgz: no space left on device; "), storesNothing),
	},
	{
		name: "large output as a tarball on a full disk", template: outputArtifacts(output("/vol/x", "")),
		prepare: ended(largeNoise, func(w *world) { smallTmp(w, "20m") }),
		check:   both(exits(64, "write /tmp/argo/outputs/artifacts/a.tgz: no space left on device; "), storesNothing),
	},
	{
		name: "output as a tarball that is there on a full disk", template: outputArtifacts(output("/tmp/x", "")), prepare: ended(left("/tmp/x", tarFile("x", noise)), fullTmp),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "tar:")), without: versions, // they copy it
	},
	{
		name: "outputs that another user may not read", user: 1000, prepare: ended(onVolume, left("/tmp/a", tarFile("a", "x")), func(w *world) {
			w.must(os.Chmod(w.path("tmp"), 0o777))
			w.must(os.Chmod(w.path("mainctrfs/vol/d/b/c.html"), 0o600))
			w.must(os.Mkdir(w.path("mainctrfs/vol/closed"), 0o700))
		}),
		template: outputArtifacts(output("/vol/d", "") + `,{"name":"b","path":"/vol/d","archive":{"zip":{}}},{"name":"c","path":"/vol/d","archive":{"none":{}}},` +
			`{"name":"d","path":"/vol/d/b/c.html","archive":{"none":{}}},{"name":"e","path":"/vol/closed"},{"name":"f","path":"/vol/closed","archive":{"none":{}}},` +
			`{"name":"g","path":"/vol/closed/x","optional":true},{"name":"h","path":"/tmp/a","archive":{"none":{}}},{"name":"i","path":"/tmp/a"}`),
		check: both(exits(64, "permission denied"), stores("wf-1/pod-1/a", "x"), stores("wf-1/pod-1/i.tgz", "x")),
	},
	{
		name: "S3 without a region", template: strings.ReplaceAll(outputArtifacts(output("/tmp/a", "")), `"region":"us-east-1",`, ""), prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "tar:")),
	},
	{
		name: "S3 that forbids", template: withArtifacts("", output("/tmp/a", ""), `"archiveLogs":true,`), s3: failing(403, "AccessDenied"),
		prepare: ended(left("/tmp/a", tarFile("a", "x")), file("ctr/main/combined", "out")),
		check:   both(exits(64, "failed to put file: AccessDenied, says the test.; "), storesNothing),
	},
	{
		name: "S3 that forbids a folder", template: outputArtifacts(output("/vol/d", asIs)), s3: failing(403, "AccessDenied"), prepare: ended(onVolume),
		check: both(exits(64, "failed to put directory: AccessDenied, says the test.; "), storesNothing),
	},
	{
		name: "S3 that forbids the third file of a folder", template: outputArtifacts(output("/vol/d", asIs)), prepare: ended(onVolume),
		s3: func(n int, w http.ResponseWriter, r *http.Request) bool {
			return r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "c.html") && failing(403, "AccessDenied")(n, w, r)
		},
		check: both(exits(64, "failed to put directory"), reports("outputs:map[]")),
	},
	{
		name: "S3 without the bucket", template: outputArtifacts(output("/tmp/a", "")), s3: failing(404, "NoSuchBucket"), prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		check: both(exits(64, "failed to put file: NoSuchBucket, says the test.; "), storesNothing),
	},
	{
		name: "S3 with another secret key", template: outputArtifacts(output("/tmp/a", "")),
		prepare: ended(left("/tmp/a", tarFile("a", "x")), func(w *world) { w.write("argo/secret/s3/secret", "wrong") }),
		check:   both(exits(64, "failed to put file: The request signature we calculated does not match"), storesNothing),
	},
	{
		name: "S3 without its secret", template: outputArtifacts(output("/tmp/a", "")),
		prepare: ended(left("/tmp/a", tarFile("a", "x")), func(w *world) { w.removeAll("argo/secret/s3/secret") }),
		check:   both(exits(64, "open /argo/secret/s3/secret: no such file or directory; "), storesNothing),
	},
	{
		name: "S3 that fails once", template: outputArtifacts(output("/tmp/a", "")), prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		s3: func(n int, w http.ResponseWriter, _ *http.Request) bool {
			return n == 0 && s3Failure(w, 500, "InternalError")
		},
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "tar:")),
	},
	{
		name: "S3 that is busy once", template: outputArtifacts(output("/tmp/a", "")), prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		s3: func(n int, w http.ResponseWriter, _ *http.Request) bool {
			return n == 0 && s3Failure(w, 503, "SlowDown")
		},
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "tar:")),
	},
	{
		name: "S3 behind a gateway without words", template: outputArtifacts(output("/tmp/a", "")), prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		s3: func(_ int, w http.ResponseWriter, r *http.Request) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusBadGateway)
			return true
		},
		check: both(exits(64, "failed to put file: 502 Bad Gateway; "), storesNothing),
	},
	{
		name: "S3 elsewhere", template: outputArtifacts(output("/tmp/a", "")), prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		s3: func(_ int, w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(http.StatusTemporaryRedirect)
			return true
		},
		check: both(exits(64, "failed to put file: 307 Temporary Redirect; "), storesNothing),
	},
	{
		name: "S3 that is cut once", template: outputArtifacts(output("/tmp/a", "")), prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		s3:    func(n int, w http.ResponseWriter, _ *http.Request) bool { return n == 0 && s3Cut(w) },
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "tar:")),
	},
	{
		name: "S3 with a certificate", tls: true, prepare: ended(left("/tmp/a", tarFile("a", "x")), onVolume, func(w *world) { w.write("mainctrfs/vol/x", large) }),
		template: strings.ReplaceAll(outputArtifacts(output("/tmp/a", "")+`,{"name":"d","path":"/vol/d","archive":{"none":{}}},{"name":"x","path":"/vol/x","archive":{"none":{}}}`), `"insecure":true`, `"caSecret":{"name":"s3","key":"ca"}`),
		check:    both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "tar:"), stores("wf-1/pod-1/x", "bytes")),
	},
	{
		name: "S3 with a certificate that is not trusted", tls: true, prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		template: strings.ReplaceAll(outputArtifacts(output("/tmp/a", "")), `"insecure":true,`, ``),
		check:    both(exits(64, "failed to verify certificate"), storesNothing),
	},
	{
		name: "output by HTTP", prepare: ended(left("/tmp/a", tarFile("a", "x"))), s3: takes(201),
		template: outputArtifacts(output("/tmp/a", `"http":{"url":"http://`+s3Endpoint+`/a?b=c","headers":[{"name":"X-Test","value":"1"}],"auth":{"clientCert":{},"oauth2":{},`+
			`"basicAuth":{"usernameSecret":{"name":"s3","key":"access"},"passwordSecret":{"name":"s3","key":"secret"}}}}`)),
		check: both(exits(0, ""), reports("b=c")),
	},
	{
		name: "output by HTTP that fails", prepare: ended(left("/tmp/a", tarFile("a", "x"))), s3: takes(500), template: outputArtifacts(output("/tmp/a", `"http":{"url":"http://`+s3Endpoint+`/a"}`)),
		check: both(exits(64, "saving file /tmp/argo/outputs/artifacts/a.tgz to http://"+s3Endpoint+"/a failed with reason: 500 Internal Server Error; "), storesNothing),
	},
	{
		name: "output by HTTP that is away", prepare: ended(left("/tmp/a", tarFile("a", "x"))), template: outputArtifacts(output("/tmp/a", `"http":{"url":"http://127.0.0.1:1/a"}`)),
		check: both(exits(64, "connection refused"), storesNothing),
	},
	{
		name: "output folder by HTTP", prepare: ended(onVolume), s3: takes(200), template: outputArtifacts(output("/vol/d", asIs+`,"http":{"url":"http://`+s3Endpoint+`/a"}`)),
		check: both(exits(64, "is a directory"), storesNothing),
	},
	{
		name: "output to a text", prepare: ended(left("/tmp/a", tarFile("a", "x"))), template: outputArtifacts(output("/tmp/a", `"raw":{"data":"x"}`)),
		check: both(exits(64, "key unsupported: cannot set key for raw artifact; "), storesNothing),
	},
	{
		name: "S3 that forbids a part", template: outputArtifacts(output("/vol/x", asIs)), prepare: ended(func(w *world) { w.write("mainctrfs/vol/x", large) }),
		s3: func(n int, w http.ResponseWriter, r *http.Request) bool {
			return r.URL.Query().Get("partNumber") == "2" && failing(403, "AccessDenied")(n, w, r)
		},
		check: both(exits(64, "failed to put file: AccessDenied, says the test.; "), storesNothing),
	},
	{
		name: "S3 that is slow while SIGTERM comes", template: outputArtifacts(output("/tmp/a", "")), prepare: ended(left("/tmp/a", tarFile("a", "x"))),
		s3: func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				time.Sleep(time.Second)
			}
			return false
		},
		during: func(w *world) {
			w.await("upload", func() bool { return w.bucket.requests.Load() > 0 })
			w.terminate()
		},
		check: both(exits(0, ""), stores("wf-1/pod-1/a.tgz", "tar:")),
	},
	{
		name: "output tarball is a link to the token", template: outputArtifacts(output("/tmp/a", option)),
		prepare: ended(func(w *world) {
			w.symlink("/var/run/secrets/kubernetes.io/serviceaccount/token", "var/run/argo/"+artifact("/tmp/a"))
		}),
		check: both(exits(64, "too many levels of symbolic links"), storesNothing), without: versions, // they upload the token
	},
	{
		name: "output tarball is a FIFO", template: outputArtifacts(output("/tmp/a", option)), prepare: ended(func(w *world) { w.fifo("var/run/argo/" + artifact("/tmp/a")) }),
		check: both(exits(64, "it is not a regular file"), storesNothing), without: versions, // they wait for ever
	},
	{
		name: "log is a link to the token", template: withArtifacts("", "", `"archiveLogs":true,`),
		prepare: ended(func(w *world) {
			w.symlink("/var/run/secrets/kubernetes.io/serviceaccount/token", "var/run/argo/ctr/main/combined")
		}),
		check: both(exits(64, "too many levels of symbolic links"), storesNothing), without: versions, // they upload the token
	},
	{
		name: "log is a FIFO", template: withArtifacts("", "", `"archiveLogs":true,`), prepare: ended(func(w *world) { w.fifo("var/run/argo/ctr/main/combined") }),
		check: both(exits(64, "it is not a regular file"), storesNothing), without: versions, // they wait for ever
	},
	{
		name:     "outputs on a volume are links to the token",
		template: outputArtifacts(output("/vol/t", "") + `,{"name":"b","path":"/vol/t","archive":{"none":{}}},{"name":"c","path":"/vol/t","archive":{"zip":{}}},{"name":"d","path":"/vol/d/token","archive":{"none":{}}}`),
		prepare: ended(func(w *world) {
			w.symlink("/var/run/secrets/kubernetes.io/serviceaccount/token", "mainctrfs/vol/t")
			w.symlink("../../var/run/secrets/kubernetes.io/serviceaccount", "mainctrfs/vol/d")
		}),
		check: both(exits(64, "no such file"), storesNothing), without: versions, // they upload the token
	},
	{
		name:     "outputs on a volume are a FIFO and a device",
		template: outputArtifacts(output("/vol/fifo", "") + `,{"name":"b","path":"/vol/fifo","archive":{"none":{}}},{"name":"c","path":"/vol/zero","archive":{"none":{}}},{"name":"d","path":"/vol/zero","archive":{"zip":{}}}`),
		prepare:  ended(func(w *world) { w.fifo("mainctrfs/vol/fifo"); w.device("mainctrfs/vol/zero") }),
		check:    both(exits(64, "/mainctrfs/vol/fifo is not a regular file or directory; "), storesNothing), without: versions, // they wait for ever
	},
	{
		name: "output folder as it is with a FIFO", template: outputArtifacts(output("/vol/d", asIs)), prepare: ended(onVolume, func(w *world) { w.fifo("mainctrfs/vol/d/a-fifo") }),
		check: both(exits(64, "a-fifo: it is not a regular file"), reports("outputs:map[]")), without: versions, // they wait for ever
	},
	{
		name: "secret is a FIFO", template: outputArtifacts(output("/tmp/a", "")),
		prepare: ended(left("/tmp/a", tarFile("a", "x")), func(w *world) { w.removeAll("argo/secret/s3/secret"); w.fifo("argo/secret/s3/secret") }),
		check:   both(exits(64, "it is not a regular file"), storesNothing), without: versions, // they wait for ever
	},
}

func (w *world) device(name string) {
	w.t.Helper()
	w.must(os.MkdirAll(w.path("mainctrfs/vol"), 0o755))
	w.must(mkzero(w.path(name)))
}

func (w *world) socket(name string) {
	w.t.Helper()
	dir, err := os.MkdirTemp("", "s") // the path of a socket is short
	w.must(err)
	defer os.RemoveAll(dir)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/s"})
	w.must(err)
	l.SetUnlinkOnClose(false)
	l.Close()
	w.must(os.Rename(dir+"/s", w.path(name)))
}

// mkzero makes a device like /dev/zero.
func mkzero(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) }
