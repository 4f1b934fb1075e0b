package testguest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// componentHeader is the magic number, version 13 and the layer of components.
const componentHeader = "\x00asm\x0d\x00\x01\x00"

func TestComponent(t *testing.T) {
	for _, guest := range []string{"hello-c", "hello-go", "hello-rust", "probe"} {
		path := BuildComponent(t, guest)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(content, []byte(componentHeader)) {
			t.Errorf("%s starts with %q", path, content[:min(8, len(content))])
		}
		for _, name := range []string{"wasi:cli/run@0.2.12", "wasi:cli/stdout@0.2.12", "wasi:cli/exit@0.2.12"} {
			if !bytes.Contains(content, []byte(name)) {
				t.Errorf("%s has nothing called %s", path, name)
			}
		}
		if again := BuildComponent(t, guest); again != path {
			t.Errorf("%s is made again as %s", path, again)
		}
	}
}

func TestComponentOfNoModule(t *testing.T) {
	path := Build(t, "text")
	if _, err := Component(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "magic") {
		t.Errorf("got error %v", err)
	}
	missing := filepath.Join(t.TempDir(), "missing.wasm")
	if _, err := Component(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("got error %v", err)
	}
}

func TestTexts(t *testing.T) {
	for guest, names := range map[string][]string{
		"component-functions":  {"greet", "fail", "refuse", "accept", "number", "add", "wasi:cli/stdout@0.2.0"},
		"component-error":      {"wasi:cli/run@0.2.3"},
		"component-exit":       {"wasi:cli/run@0.2.12", "wasi:cli/exit@0.2.12"},
		"component-hostimport": {"wasi:cli/run@0.2.0", "example:host/api"},
		"component-http":       {"wasi:cli/run@0.2.0", "wasi:http/types@0.2.10", "wasi:http/outgoing-handler@0.2.10", "wasi:http/outgoing-handler@0.2.6"},
		"component-sockets":    {"wasi:cli/run@0.2.0", "wasi:sockets/tcp-create-socket@0.2.0"},
	} {
		content, err := os.ReadFile(Build(t, guest))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(content, []byte(componentHeader)) {
			t.Errorf("%s starts with %q", guest, content[:min(8, len(content))])
		}
		for _, name := range names {
			if !bytes.Contains(content, []byte(name)) {
				t.Errorf("%s has nothing called %s", guest, name)
			}
		}
	}
}
