package step_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// disk mounts a small file system on a folder of the container, with what has been there.
func disk(name, options string) func(*world) {
	return func(w *world) {
		w.must(unix.Mount("tmpfs", w.path(name), "tmpfs", 0, options))
		w.t.Cleanup(func() { w.must(unix.Unmount(w.path(name), unix.MNT_DETACH)) })
	}
}

// readOnly makes a folder of the container read-only.
func readOnly(name string) func(*world) {
	return func(w *world) {
		w.must(unix.Mount(w.path(name), w.path(name), "", unix.MS_BIND, ""))
		w.t.Cleanup(func() { w.must(unix.Unmount(w.path(name), unix.MNT_DETACH)) })
		w.must(unix.Mount("", w.path(name), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	}
}

// leaves checks that a folder has nothing but these.
func leaves(dir string, names ...string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		t.Helper()
		for name := range o.files {
			if rel, err := filepath.Rel(dir, name); err == nil && rel != "." && !strings.HasPrefix(rel, "..") && !slices.Contains(names, rel) {
				t.Errorf("there is %s", name)
			}
		}
	}
}

var longScript = strings.Replace(scriptTemplate, `"source":"`, `"source":"`+strings.Repeat("# a long script ", 1000), 1)

const (
	fullDisk  = "size=4k"
	noEntries = "size=64k,nr_inodes=1"
)

var longText = `"raw":{"data":"` + strings.Repeat("0123456789", 1000) + `"}`

var diskScenes = []scene{
	{
		name: "script on a full disk", verb: "init", template: longScript, prepare: disk("argo/staging", fullDisk), briefly: true,
		check: both(exits(64, "write /argo/staging/script: no space left on device"), leaves("argo/staging")),
	},
	{
		name: "script on a disk without entries", verb: "init", template: longScript, prepare: disk("argo/staging", noEntries), briefly: true,
		check: both(exits(64, "open /argo/staging/script: no space left on device"), leaves("argo/staging")),
	},
	{
		name: "script on a read-only disk", verb: "init", template: longScript, prepare: readOnly("argo/staging"), briefly: true,
		check: both(exits(64, "open /argo/staging/script: read-only file system"), leaves("argo/staging")),
	},
	{
		// Upstream writes another file first, argoexec.
		name: "template on a full disk", verb: "init", template: longScript, prepare: disk("var/run/argo", fullDisk), without: versions,
		check: both(exits(64, "write /var/run/argo/template: no space left on device"), leaves("var/run/argo")),
	},
	{
		name: "template on a disk without entries", verb: "init", template: longScript, prepare: disk("var/run/argo", noEntries), without: versions,
		check: both(exits(64, "open /var/run/argo/template: no space left on device"), leaves("var/run/argo")),
	},
	{
		name: "template on a read-only disk", verb: "init", template: longScript, prepare: readOnly("var/run/argo"), without: versions,
		check: both(exits(64, "open /var/run/argo/template: read-only file system"), leaves("var/run/argo", "secrets")),
	},
	{
		name: "input text on a full disk", verb: "init", template: withInputs("", longText), prepare: disk(inputsDir, fullDisk), briefly: true,
		check: both(exits(64, "no space left on device"), leaves(inputsDir)),
	},
	{
		name: "input text on a disk without entries", verb: "init", template: withInputs("", longText), prepare: disk(inputsDir, noEntries), briefly: true,
		check: both(exits(64, "no space left on device"), leaves(inputsDir)),
	},
	{
		name: "input text on a read-only disk", verb: "init", template: withInputs("", longText), prepare: readOnly(inputsDir), briefly: true,
		check: both(exits(64, "read-only file system"), leaves(inputsDir)),
	},
	{
		name: "input on a full disk", verb: "init", template: withInputs("", inKey), briefly: true,
		prepare: all(objects(map[string]string{"k": big}), disk(inputsDir, fullDisk)),
		check:   both(exits(64, "no space left on device"), leaves(inputsDir)),
	},
	{
		name: "input folder on a disk without entries", verb: "init", template: withInputs("", inKey), briefly: true,
		prepare: all(objects(map[string]string{"k/x": "1", "k/d/x": "2"}), disk(inputsDir, "size=64k,nr_inodes=4")),
		check:   both(exits(64, "no space left on device"), leaves(inputsDir)),
	},
	{
		name: "input by HTTP on a full disk", verb: "init", template: withInputs("", `"http":{"url":"http://`+s3Endpoint+`/x"}`), briefly: true,
		s3: func(_ int, w http.ResponseWriter, _ *http.Request) bool { _, _ = fmt.Fprint(w, big); return true }, prepare: disk(inputsDir, fullDisk),
		check: both(exits(64, "no space left on device"), leaves(inputsDir)),
	},
	{
		name: "input tarball on a full disk", verb: "init", template: withInputs("", inKey), briefly: true,
		prepare: all(objects(map[string]string{"k": tgz(tarFile("d/x", "1"), tarFile("d/y", strings.Repeat("0", 1<<20)))}), disk(inputsDir, "size=64k")),
		check:   both(exits(64, "no space left on device"), leaves(inputsDir)),
	},
	{
		name: "input zip file on a full disk", verb: "init", template: withInputs("", inKey+`,"archive":{"zip":{}}`), briefly: true,
		prepare: all(objects(map[string]string{"k": zipped("d/x", "1", "d/y", strings.Repeat("0", 1<<20))}), disk(inputsDir, "size=64k")),
		check:   both(exits(64, "no space left on device"), leaves(inputsDir)),
	},
	{
		name: "output without a folder for temporary files", template: outputArtifacts(output("/vol/x", "")), briefly: true,
		prepare: all(ended(func(w *world) { w.write("mainctrfs/vol/x", "x") }), func(w *world) { w.removeAll("tmp") }),
		check:   both(exits(0, ""), reports("name:a")),
	},
	{
		// Upstream makes a folder there before the first artifact, and says so without the semicolon.
		name: "output with a read-only folder for temporary files", template: outputArtifacts(output("/vol/x", "")), without: versions,
		prepare: all(ended(func(w *world) { w.write("mainctrfs/vol/x", "x") }), readOnly("tmp")),
		check:   both(exits(64, "mkdir /tmp/argo: read-only file system; "), storesNothing),
	},
	{
		// Upstream makes a folder there before the first artifact, and says so without the semicolon.
		name: "output as a zip file with a read-only folder for temporary files", template: outputArtifacts(output("/vol/x", asZip)), without: versions,
		prepare: all(ended(func(w *world) { w.write("mainctrfs/vol/x", "x") }), readOnly("tmp")),
		check:   both(exits(64, "mkdir /tmp/argo: read-only file system; "), storesNothing),
	},
	{
		// Upstream makes a folder there before the first artifact, and says so without the semicolon.
		name: "output as it is with a read-only folder for temporary files", template: outputArtifacts(output("/tmp/d", asIs)), without: versions,
		prepare: all(ended(left("/tmp/d", tarDir("d"), tarFile("d/x", "x"))), readOnly("tmp")),
		check:   both(exits(64, "mkdir /tmp/argo: read-only file system; "), storesNothing),
	},
	{
		name: "outputs with a read-only volume", template: scriptTemplate, env: []string{"ARGO_INCLUDE_SCRIPT_OUTPUT=true"}, briefly: true,
		prepare: all(ended(file("ctr/main/stdout", "result\n")), readOnly("var/run/argo")),
		check:   both(exits(0, ""), reports("result")),
	},
}
