package e2e

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// up leads to the root from every folder. WASI has no absolute links.
const up = "../../../../../../../../../../../.."

// A guest may leave links at the path of an output, or in a folder that is an output. They lead to files of its
// container, as a native program's links do. Links in a folder are kept as links.
func TestWorkflowLinks(t *testing.T) {
	sameAsNative(t, `
entrypoint: main
templates:
- name: main
  container:
    image: $IMAGE
    command: [$PROBE]
    args: [symlink, ../etc/passwd, /tmp/near, ",", symlink, `+up+`/etc/group, /tmp/up, ",", mkdir, /tmp/tree, ",", symlink, `+up+`/etc/group, /tmp/tree/up, ",", symlink, ../.., /tmp/tree/root]
  outputs:
    parameters: [{name: near, valueFrom: {path: /tmp/near}}, {name: up, valueFrom: {path: /tmp/up}}]
    artifacts: [{name: tree, path: /tmp/tree}]
`, func(t *testing.T, w workflow) {
		w.is(t, "Succeeded")
		n := w.node(t, "")
		equal(t, "the file of the first link", n.parameter(t, "near"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false")
		equal(t, "the file of the second link", n.parameter(t, "up"), "root:x:0:\nnogroup:x:65534:")
		equal(t, "the folder", unpacked(t, n.artifact(t, "tree")), "5 tree  \"\"\n2 tree/root ../.. \"\"\n2 tree/up "+up+"/etc/group \"\"\n")
	})
}

// No link lets a guest cause a read or a write outside of its container: of files of the node, of the worker's own
// root, or of Argo's volume.
func TestWorkflowLinksOut(t *testing.T) {
	there, here := onNode(t)
	put(t, "secret of the node", here, "secret")
	put(t, "untouched", here, "target")
	t.Cleanup(func() { equal(t, "the file on the node", get(t, here, "target"), "untouched") })
	eachArgo(t, func(t *testing.T, a *argo) {
		w := a.run(t, asWasm.workflow(t, `
entrypoint: main
templates:
- name: main
  steps:
  - - name: read
      template: read
      continueOn: {failed: true, error: true}
      arguments: {parameters: [{name: target, value: "{{item}}"}]}
      withItems: [`+up+there+`/secret, `+up+`/proc/self/exe, `+up+`/worker]
    - name: write
      template: write
      continueOn: {failed: true, error: true}
      arguments: {parameters: [{name: "do", value: "{{item.do}}"}, {name: from, value: "{{item.from}}"}, {name: to, value: "{{item.to}}"}]}
      withItems:
      - {do: write, from: /var/run/argo/ctr/main/exitcode, to: "0"}
      - {do: symlink, from: `+up+there+`/target, to: /var/run/argo/outputs}
      - {do: rename, from: /var/run/argo/template, to: /tmp/template}
- name: read
  inputs: {parameters: [{name: target}]}
  container: {image: $IMAGE, command: [$PROBE], args: [symlink, "{{inputs.parameters.target}}", /tmp/link]}
  outputs:
    parameters: [{name: link, valueFrom: {path: /tmp/link, default: nothing}}]
    artifacts: [{name: link, path: /tmp/link, optional: true}]
- name: write
  inputs: {parameters: [{name: "do"}, {name: from}, {name: to}]}
  container: {image: $IMAGE, command: [$PROBE], args: ["{{inputs.parameters.do}}", "{{inputs.parameters.from}}", "{{inputs.parameters.to}}"]}
  outputs: {parameters: [{name: planted, valueFrom: {path: /tmp/planted, default: nothing}}]}
`))
		for name, n := range w.nodes(t) {
			switch {
			case n.Type != "Pod":
			case strings.Contains(name, "write("):
				n.is(t, "Failed", "1")
			case len(n.Outputs.Parameters) == 0 || n.parameter(t, "link") != "nothing":
				t.Errorf("node %s read %+v", name, n.Outputs)
			}
		}
		stored(t, w, "secret of the node")
	})
}

// stored searches everything that a workflow has left in the S3 server for a text.
func stored(t *testing.T, w workflow, text string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(cluster.S3().Dir, w.GetName()), func(path string, entry fs.DirEntry, err error) error {
		if os.IsNotExist(err) || err == nil && !entry.Type().IsRegular() {
			return nil
		}
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".tgz") {
			content = []byte(unpacked(t, content))
		}
		if bytes.Contains(content, []byte(text)) {
			t.Errorf("%s holds %q", path, text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
