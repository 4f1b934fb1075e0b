package step_test

import (
	"strings"
	"testing"
)

const (
	scriptTemplate = `{"name":"a","inputs":{},"outputs":{},"metadata":{},"script":{"name":"","image":"i","command":["sh"],"resources":{},"source":"echo \"ü\"\n"}}`
	setTemplate    = `{"name":"a","inputs":{},"outputs":{},"metadata":{},"containerSet":{"containers":[{"name":"one","image":"i","resources":{}},{"name":"main","image":"i","resources":{}}]}}`
)

// holds returns a check of files and of an exit code.
func holds(exit int, files map[string]string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		t.Helper()
		if o.exit != exit {
			t.Errorf("exit code %d, want %d", o.exit, exit)
		}
		for name, content := range files {
			if !strings.HasPrefix(o.files[name], content) {
				t.Errorf("%s is %s, want %s", name, o.files[name], content)
			}
		}
	}
}

var initScenes = []scene{
	{
		name: "init of a container", verb: "init", template: containerTemplate,
		check: holds(0, map[string]string{"var/run/argo/argoexec": "-r-xr-xr-x true", "var/run/argo/template": "-r--r--r--"}),
	},
	{
		name: "init of a script", verb: "init", template: scriptTemplate,
		check: holds(0, map[string]string{"argo/staging/script": `-rwxr-xr-x "echo \"ü\"\n"`}),
	},
	{
		name: "init of a script again", verb: "init", template: scriptTemplate,
		prepare: func(w *world) {
			w.argo("template", "{}")
			w.write("argo/staging/script", "old, and longer than the new one")
		},
		// Upstream keeps the modes of files that are there already.
		without: versions,
		check:   holds(0, map[string]string{"argo/staging/script": `-rwxr-xr-x "echo \"ü\"\n"`, "var/run/argo/template": "-r--r--r--"}),
	},
	{
		name: "init without a directory for the script", verb: "init", template: scriptTemplate,
		prepare: func(w *world) { w.removeAll("argo/staging") },
		check:   holds(64, nil),
	},
	{
		name: "init without the volume", verb: "init", template: containerTemplate,
		prepare: func(w *world) { w.removeAll("var/run/argo") },
		// Upstream writes another file first, argoexec.
		without: versions,
		check:   both(holds(64, nil), exits(64, "open /var/run/argo/template: no such file or directory")),
	},
	{
		name: "init of a container set", verb: "init", template: setTemplate,
		check: holds(0, nil),
	},
	{
		name: "init onto planted links", verb: "init", template: scriptTemplate,
		prepare: func(w *world) {
			w.symlink("/root/x", "var/run/argo/template")
			w.symlink("/root/y", "argo/staging/script")
			w.fifo("var/run/argo/argoexec")
		},
		// Upstream follows them, and hangs on the FIFO.
		without: versions,
		check:   holds(0, map[string]string{"argo/staging/script": "-rwxr-xr-x", "var/run/argo/template": "-r--r--r--", "root/x": "", "root/y": ""}),
	},
}
