package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// artifact returns the content that the S3 server stores for an output artifact.
func (n node) artifact(t testing.TB, name string) []byte {
	t.Helper()
	for _, a := range n.Outputs.Artifacts {
		if a.Name != name || a.S3 == nil {
			continue
		}
		content, err := os.ReadFile(filepath.Join(cluster.S3().Dir, a.S3.Key))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	t.Fatalf("node %s has no artifact %q: %+v", n.Name, name, n.Outputs.Artifacts)
	return nil
}

// unpacked returns a line for each entry of an archive that Argo packed, with the contents of files.
func unpacked(t testing.TB, archive []byte) string {
	t.Helper()
	plain, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatalf("%v: %.100q", err, archive)
	}
	var lines strings.Builder
	entries := tar.NewReader(plain)
	for {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return lines.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(entries)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%c %s %s %q\n", entry.Typeflag, entry.Name, entry.Linkname, content)
	}
}

// One kind of step reads what the other writes: a folder, an empty file, names in UTF-8. Both produce the same
// archive.
func TestWorkflowArtifacts(t *testing.T) {
	const spec = `
entrypoint: main
templates:
- name: main
  steps:
  - - {name: write, template: write}
  - - name: read
      template: read
      arguments: {artifacts: [{name: tree, from: "{{steps.write.outputs.artifacts.tree}}"}, {name: plain, from: "{{steps.write.outputs.artifacts.plain}}"}, {name: empty, from: "{{steps.write.outputs.artifacts.empty}}"}]}
- name: write
  container:
    image: $IMAGE
    command: [$PROBE]
    args: [mkdir, /tmp/tree, ",", mkdir, /tmp/tree/below, ",", write, /tmp/tree/below/größe, "gemäß\n", ",", write, /tmp/tree/empty, "", ",", write, /tmp/plain, "no newline", ",", write, /tmp/empty, "", ",", symlink, below/größe, /tmp/tree/link]
  outputs:
    artifacts:
    - {name: tree, path: /tmp/tree}
    - {name: plain, path: /tmp/plain, archive: {none: {}}}
    - {name: empty, path: /tmp/empty, archive: {none: {}}}
    - {name: missing, path: /tmp/missing, optional: true}
- name: read
  inputs: {artifacts: [{name: tree, path: /in/tree}, {name: plain, path: /in/plain}, {name: empty, path: /in/empty}]}
  container:
    image: $OTHER
    command: [$OTHERPROBE]
    args: [ls, /in/tree, ",", read, /in/tree/link, ",", stat, /in/tree/empty, ",", ls, /in/tree/below, ",", read, /in/plain, ",", stat, /in/empty]
  outputs: {artifacts: [{name: again, path: /in/tree}]}
`
	const tree = "5 tree  \"\"\n5 tree/below  \"\"\n0 tree/below/größe  \"gemäß\\n\"\n0 tree/empty  \"\"\n2 tree/link below/größe \"\"\n"
	eachArgo(t, func(t *testing.T, a *argo) {
		for _, pair := range [][2]flavour{{asWasm, asNative}, {asNative, asWasm}, {asWasm, asWasm}} {
			writer, reader := pair[0], pair[1]
			t.Run(writer.name+"-to-"+reader.name, func(t *testing.T) {
				t.Parallel()
				other := strings.NewReplacer("$OTHERPROBE", reader.program, "$OTHER", reader.image)
				object := writer.workflow(t, other.Replace(spec))
				set(t, object, `{"runtimeClassName":"wasm"}`, "spec", "podSpecPatch") // native containers run under it too
				w := a.run(t, object).is(t, "Succeeded")
				written, read := w.node(t, "[0].write"), w.node(t, "[1].read")
				equal(t, "the folder's archive", unpacked(t, written.artifact(t, "tree")), tree)
				equal(t, "the plain file", string(written.artifact(t, "plain")), "no newline")
				equal(t, "the empty file", string(written.artifact(t, "empty")), "")
				equal(t, "the archive of what was read", unpacked(t, read.artifact(t, "again")), tree)
				equal(t, "what the second step printed", a.logsOf(t, w, "[1].read"), "below\nempty\nlink\ngemäß\nfile 0\ngröße\nno newlinefile 0\n")
			})
		}
	})
}

// 100 MB go from a container into a Wasm step, which copies them, and back into a container. The Wasm step reads them from
// the store, as they are and as a tarball.
func TestWorkflowLargeArtifact(t *testing.T) {
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.run(t, asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  steps:
  - - {name: write, template: write}
  - - name: copy
      template: copy
      arguments: {artifacts: [{name: data, from: "{{steps.write.outputs.artifacts.data}}"}, {name: packed, from: "{{steps.write.outputs.artifacts.packed}}"}]}
  - - name: compare
      template: compare
      arguments: {artifacts: [{name: data, from: "{{steps.write.outputs.artifacts.data}}"}, {name: copy, from: "{{steps.copy.outputs.artifacts.data}}"}]}
- name: write
  container: {image: `+nativeImage+`, command: [sh, -c, mkdir /tmp/packed && head -c 100000000 /dev/urandom > /tmp/data && head -c 1000000 /tmp/data > /tmp/packed/first && echo end > /tmp/packed/last]}
  outputs: {artifacts: [{name: data, path: /tmp/data, archive: {none: {}}}, {name: packed, path: /tmp/packed}]}
- name: copy
  inputs: {artifacts: [{name: data, path: /tmp/data}, {name: packed, path: /tmp/packed}]}
  container: {image: $IMAGE, command: [$PROBE], args: [copy, /tmp/data, /tmp/copy, ",", read, /tmp/packed/last, ",", stat, /tmp/packed/first]}
  outputs: {artifacts: [{name: data, path: /tmp/copy, archive: {none: {}}}]}
- name: compare
  inputs: {artifacts: [{name: data, path: /tmp/data}, {name: copy, path: /tmp/copy}]}
  container: {image: `+nativeImage+`, command: [sh, -c, "stat -c %s /tmp/copy > /tmp/size && cmp /tmp/data /tmp/copy"]}
  outputs: {parameters: [{name: size, valueFrom: {path: /tmp/size}}]}
`)).is(t, "Succeeded")
		equal(t, "the copy's size", w.node(t, "[2].compare").parameter(t, "size"), "100000000")
		equal(t, "the copying step's output", a.logsOf(t, w, "[1].copy"), "end\nfile 1000000\n")
		if a.executor {
			return
		}
		for _, name := range []string{"data", "packed"} {
			left := "leave an input artifact to be read from its store\" argo=true name=" + name
			if log := a.logs(t, a.pod(t, w, "[1].copy").Name, "init"); !strings.Contains(log, left) {
				t.Errorf("init printed\n%s", log)
			}
		}
	})
}

// Argo itself takes artifacts from a volume of the pod.
func TestWorkflowArtifactsOnVolumes(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  volumes: [{name: work, emptyDir: {}}]
  inputs: {artifacts: [{name: given, path: /work/given, raw: {data: "given text"}}]}
  container:
    image: $IMAGE
    command: [$PROBE]
    args: [copy, /work/given, /work/copy, ",", write, /work/parameter, value]
    volumeMounts: [{name: work, mountPath: /work}]
  outputs:
    parameters: [{name: parameter, valueFrom: {path: /work/parameter}}]
    artifacts: [{name: copy, path: /work/copy, archive: {none: {}}}]
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		equal(t, "the parameter", w.node(t, "").parameter(t, "parameter"), "value")
		equal(t, "the artifact", string(w.node(t, "").artifact(t, "copy")), "given text")
	})
}

// The archived log contains exactly what the guest printed.
func TestWorkflowArchivedLogs(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  archiveLocation: {archiveLogs: true}
  container: {image: $IMAGE, command: [$PROBE], args: [lines, "2", ",", exit, "3"]}
`, func(t *testing.T, w workflow) {
		w.is(t, "Failed")
		equal(t, "the archived log", string(w.node(t, "").artifact(t, "main-logs")), "line 1\nline 2\n")
	})
}
