// Package testguest builds the guests that tests, the demo and the benchmark run: Wasm modules in C,
// Go and Rust, deliberately broken ones, components, and native programs to compare with, and packs them
// into images. Each guest is built once for its source and its compiler and kept in .cache/guests.
// No shipped binary imports it.
package testguest

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
)

//go:embed src
var sources embed.FS

// guest is a program built from one file below src.
type guest struct {
	source  string
	version []string // a command that prints the compiler's version
	compile []string // OUTPUT and SOURCE stand for the files
	env     []string
}

// The C compilers get no -march or similar option: their output must run everywhere.
var (
	clangVersion = []string{"clang", "--version"}
	clangCompile = []string{"clang", "--target=wasm32-wasi", "-O2", "-s", "-o", "OUTPUT", "SOURCE"}
	gccVersion   = []string{"gcc", "--version"}
	gccCompile   = []string{"gcc", "-O2", "-s", "-static", "-o", "OUTPUT", "SOURCE"}
)

var compiled = map[string]guest{
	"hello-c":      {source: "hello.c", version: clangVersion, compile: clangCompile},
	"files":        {source: "files.c", version: clangVersion, compile: clangCompile},
	"files-native": {source: "files.c", version: gccVersion, compile: gccCompile},
	"probe":        {source: "probe.c", version: clangVersion, compile: clangCompile},
	"probe-native": {source: "probe.c", version: gccVersion, compile: gccCompile},
	"hello-native": {source: "hello-native.c", version: gccVersion, compile: gccCompile},
	"holder":       {source: "holder.c", version: gccVersion, compile: gccCompile},
	"pause":        {source: "pause.c", version: gccVersion, compile: gccCompile},
	"hello-go": {
		source:  "hello-go/main.go",
		version: []string{"go", "version"},
		compile: []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", "OUTPUT", "SOURCE"},
		env:     []string{"GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off"},
	},
	// Debian's compiler by its path: a different one earlier in the PATH may lack the target.
	"hello-rust": {
		source:  "hello.rs",
		version: []string{"/usr/bin/rustc", "--version"},
		compile: []string{"/usr/bin/rustc", "--target=wasm32-wasi", "-O", "-Cstrip=symbols", "-o", "OUTPUT", "SOURCE"},
	},
}

// Names returns the names that [File] knows, sorted.
func Names() []string {
	var names []string
	for name := range compiled {
		names = append(names, name)
	}
	for name := range handmade {
		names = append(names, name)
	}
	for name := range texts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// File returns the absolute path of the named guest, and builds it first if it is missing. Several processes
// may call it at once. Callers must not change the file.
func File(name string) (string, error) {
	if binary, ok := handmade[name]; ok {
		return Keep(name+".wasm", binary())
	}
	var path string
	var err error
	if g, ok := compiled[name]; ok {
		path, err = g.build(name)
	} else if source, ok := texts[name]; ok {
		path, err = translate(name, source)
	} else {
		return "", fmt.Errorf("no guest is called %q; known: %s", name, strings.Join(Names(), ", "))
	}
	if err != nil {
		return "", fmt.Errorf("build guest %s: %w", name, err)
	}
	return path, nil
}

// Keep returns the path of a file in the cache that holds content, for guests that a caller makes itself.
// name is the file's name; equal content is stored once.
func Keep(name string, content []byte) (string, error) {
	return once("guests", name, digest(content), func(path string) error {
		return os.WriteFile(path, content, 0o755)
	})
}

func (g guest) build(name string) (string, error) {
	source, err := sources.ReadFile("src/" + g.source)
	if err != nil {
		return "", err
	}
	version, err := exec.Command(g.version[0], g.version[1:]...).Output()
	if err != nil {
		return "", fmt.Errorf("%w (hack/deps.sh installs what guests need)", err)
	}
	key := digest(source, version, []byte(strings.Join(slices.Concat(g.compile, g.env), "\x00")))
	file := name + ".wasm"
	if g.version[0] == gccVersion[0] {
		file = name
	}
	return once("guests", file, key, func(path string) error { return g.run(source, path) })
}

// run compiles the source into output. It writes the source to a temporary folder.
// afterwards.
func (g guest) run(source []byte, output string) error {
	dir, err := os.MkdirTemp("", "guest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, filepath.Base(g.source))
	if err := os.WriteFile(path, source, 0o644); err != nil {
		return err
	}
	args := slices.Clone(g.compile)
	for i, arg := range args {
		switch arg {
		case "OUTPUT":
			args[i] = output
		case "SOURCE":
			args[i] = path
		}
	}
	command := exec.Command(args[0], args[1:]...)
	command.Dir = dir
	command.Env = append(os.Environ(), g.env...)
	if text, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, text)
	}
	return nil
}

// once returns the path of file for key in the named folder of the cache. If the file is missing, produce
// writes it under another name first; a lock keeps others from making it at the same time.
func once(folder, file, key string, produce func(path string) error) (string, error) {
	cache, err := repo.Cache(folder)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, strings.TrimSuffix(file, ".wasm")+"-"+key)
	path := filepath.Join(dir, file)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer lock.Close() // this also releases the lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", dir, err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	partial := path + ".partial"
	if err := produce(partial); err != nil {
		return "", err
	}
	return path, os.Rename(partial, path)
}

// digest is a short name for the parts; their lengths keep them apart.
func digest(parts ...[]byte) string {
	sum := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(sum, "%d:", len(part))
		sum.Write(part)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
}
