package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/module/cache"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// filled makes a cache with a module of two engines, the second compiled last, and a configuration that names
// it.
func filled(t *testing.T) (dir, config string) {
	t.Helper()
	return filledBy(t, "old", "new")
}

// filledBy makes a cache with one module per engine, named after the engine.
func filledBy(t *testing.T, engines ...string) (dir, config string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "cache")
	for _, engine := range engines {
		c, err := cache.Open(dir, engine)
		if err != nil {
			t.Fatal(err)
		}
		entry, err := c.Load(t.Context(), strings.Repeat("0123", 16)+"-gzip", func(_ context.Context, out *os.File) (*control.Module, error) {
			_, err := out.Write(make([]byte, 3<<20))
			return &control.Module{Name: "/" + engine + ".wasm"}, err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := entry.Close(); err != nil {
			t.Fatal(err)
		}
	}
	config = filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(config, []byte(fmt.Sprintf("cache_dir = %q\ncache_size = \"1GiB\"", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, config
}

func say(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	var out, err bytes.Buffer
	failure := run(t.Context(), args, stdio{strings.NewReader(input), &out, &err})
	return out.String(), failure
}

func TestCacheVerbs(t *testing.T) {
	dir, config := filled(t)
	list := func() string {
		t.Helper()
		text, err := say(t, "", "cache", "ls", "--engine", "new", "--config", config)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	text := list()
	lines := strings.Split(text, "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[0], "MODULE ") || lines[3] != fmt.Sprintf("2 modules, 6.0MiB of 1.0GiB (%s)", dir) {
		t.Fatalf("listed\n%s", text)
	}
	for _, want := range []string{"0123012301230123-gzip  /old.wasm  3.0MiB  ", "  old      the cache  no", "/new.wasm", "  current  the cache  no"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if got, err := say(t, "", "cache", "prune", "--engine", "new", "--config", config); err != nil || got != "removed 0123012301230123-gzip /old.wasm 3.0MiB\nfreed 3.0MiB\n" {
		t.Errorf("pruned %q, %v", got, err)
	}
	if got, err := say(t, "", "cache", "prune", "--all", "--config", config); err != nil || !strings.HasSuffix(got, "/new.wasm 3.0MiB\nfreed 3.0MiB\n") {
		t.Errorf("pruned %q, %v", got, err)
	}
	if text := list(); !strings.Contains(text, "\n0 modules, 0.0KiB of 1.0GiB") {
		t.Errorf("listed\n%s", text)
	}
}

func TestCacheVerbsRefuse(t *testing.T) {
	for want, args := range map[string][]string{
		"run it through containerd-shim-wasm-v1, which knows": {"cache", "prune"},
		"run it through containerd-shim-wasm-v1, which can":   {"cache", "warm"},
		`unexpected argument "x"`:                             {"cache", "ls", "x"},
		"is a directory":                                      {"cache", "ls", "--config", "/"},
	} {
		if _, err := say(t, "", args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", args, err, want)
		}
	}
}

// keep without a containerd fails with an error that says so.
func TestKeepWithoutContainerd(t *testing.T) {
	dir, _ := filled(t)
	_, err := say(t, "", "keep", "--address", filepath.Join(t.TempDir(), "none"), "--container", "id", "--cache", dir, "--engine", "new", "--module", "m", "--key", "k")
	if err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v", err)
	}
}

// Images choose the names of modules, so control characters in names and errors do not reach the terminal.
func TestNamesDoNotSteerTheTerminal(t *testing.T) {
	_, config := filledBy(t, "x\x1b]0;owned\a\x1b[2J\u202e")
	for _, args := range [][]string{{"cache", "ls"}, {"cache", "prune", "--all"}} {
		got, err := say(t, "", append(args, "--config", config)...)
		if err != nil || !strings.Contains(got, "/x?]0;owned??[2J?.wasm") {
			t.Errorf("%v: %q, %v", args, got, err)
		}
	}
	var said bytes.Buffer
	tell(&said, fmt.Errorf("image \x1b[2J: %s\nand more", strings.Repeat("x", 1<<20)))
	if got := said.String(); !strings.HasPrefix(got, "image ?[2J: xxx") || !strings.HasSuffix(got, "x; and more\n") || len(got) > 10<<10 {
		t.Errorf("it says %d bytes: %.100q", len(got), got)
	}
}
