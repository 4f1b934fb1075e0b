package install

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/config"
)

func TestBlockIsCutWithItsLineBreak(t *testing.T) {
	const body = "[a]\nb = 1\n"
	for _, text := range []string{"", "x = 1", "x = 1\n", "x = 1\n\n", "\n", "x = 1\r\n", "x = 1\r\ny = 2", "\r\n", "# ünï"} {
		edited := appendBlock([]byte(text), body)
		b, err := findBlock(edited)
		if err != nil || b == nil || b.edited || b.body != body {
			t.Fatalf("%q: %+v, %v", edited, b, err)
		}
		if got := b.cut(edited); string(got) != text {
			t.Errorf("%q became %q", text, got)
		}
		if _, err := parse(edited); err != nil {
			t.Errorf("%q: %v", edited, err)
		}
	}
}

// A blank line that is gone is not taken from the line before it.
func TestBlockWithoutItsBlankLine(t *testing.T) {
	edited := bytes.Replace(appendBlock([]byte("x = 1\n"), "y = 1\n"), []byte("\n\n#"), []byte("\n#"), 1)
	b, err := findBlock(edited)
	if err != nil || b == nil || string(b.cut(edited)) != "x = 1\n" {
		t.Fatalf("%+v, %v", b, err)
	}
}

func TestMarkersThatMakeNoPair(t *testing.T) {
	one := string(appendBlock(nil, "x = 1\n"))
	for text, want := range map[string]string{
		one + one:                            "second line",
		endMark + "\n":                       "without its beginning",
		one + endMark + "\n":                 "without its beginning",
		beginMark + "0\nx = 1\n":             "lacks the line",
		strings.Replace(one, endMark, "", 1): "lacks the line",
	} {
		if _, err := findBlock([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want something with %q", text, err, want)
		}
	}
}

// Whatever a file holds: an install that is not refused keeps its text as the
// beginning of the new one, a second install finds the first, and uninstall gives
// the text back byte for byte.
func FuzzInstallUninstall(f *testing.F) {
	files, err := filepath.Glob("testdata/*.toml*")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, true)
		f.Add(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), false)
	}
	f.Add([]byte("version = 3\nx = '''\n"+beginMark+"1\n"+endMark+"\n'''\n"), true)
	f.Add([]byte("version = 2\nx = nan"), false)
	f.Add([]byte("[plugins.cri]\n[[plugins.cri.containerd.runtimes]]\n"), false)
	f.Fuzz(func(t *testing.T, text []byte, modern bool) {
		original, err := newConfigFile("config.toml", text)
		if err != nil || original.block != nil {
			return
		}
		n := fuzzedNode(modern, original)
		c, err := n.planInstall()
		if err != nil || c == nil || c.path != original.path {
			return
		}
		if !bytes.HasPrefix(c.after, text) {
			t.Fatalf("%q became %q", text, c.after)
		}
		installed, err := newConfigFile("config.toml", c.after)
		if err != nil || installed.block == nil {
			t.Fatalf("%q is not read back: %v", c.after, err)
		}
		n = fuzzedNode(modern, installed)
		if again, err := n.planInstall(); err != nil || again != nil {
			t.Fatalf("second install: %+v, %v", again, err)
		}
		changes, err := n.planRemoval()
		if err != nil && bytes.Contains(text, []byte("default_runtime_name")) {
			return
		}
		if err != nil || len(changes) != 1 {
			t.Fatalf("uninstall: %+v, %v\n%q", changes, err, c.after)
		}
		if got := changes[0].after; !bytes.Equal(got, text) && !isHeader(text) {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

func fuzzedNode(modern bool, f *configFile) *node {
	n := &node{options: Options{NodeConfig: config.DefaultPath}, containerd: containerd{version: "1.7.35", major: 1}}
	if modern {
		n.containerd = containerd{version: "2.2.9", major: 2}
	}
	n.files = []*configFile{f}
	return n
}
