// Package examples builds the images that the workflows in examples/argo name, from the programs in
// examples/guests: each file NAME.rs is a program in Rust, each folder NAME a Go module. Tests and
// "make examples" use it; no shipped binary imports it.
package examples

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wasmshim/containerd-shim-wasm/internal/repo"
	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
)

const (
	prefix = "localhost/wasm-examples/"
	tag    = ":1"

	// Native is the only image of the examples that is not ours, with the name as Kubernetes completes it.
	Native = "docker.io/library/busybox:1.37"
)

// Names returns the programs, sorted.
func Names() ([]string, error) {
	dir, err := guests()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		names = append(names, strings.TrimSuffix(entry.Name(), ".rs"))
	}
	slices.Sort(names)
	return names, nil
}

func guests() (string, error) {
	root, err := repo.Root()
	return filepath.Join(root, "examples", "guests"), err
}

// Workflows returns the files of the example workflows, sorted.
func Workflows() ([]string, error) {
	root, err := repo.Root()
	if err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(root, "examples", "argo", "*.yaml"))
}

// Reference returns the name of a program's image.
func Reference(name string) string { return prefix + name + tag }

// Image returns the image of a program: /app.wasm, which is its entry point, and an empty /tmp. The program is built
// first if it is missing.
func Image(ctx context.Context, name string) (testguest.ImageOpts, error) {
	file, err := build(ctx, name)
	if err != nil {
		return testguest.ImageOpts{}, fmt.Errorf("build example %s: %w", name, err)
	}
	return testguest.ImageOpts{
		Files:      map[string]string{"/app.wasm": file},
		Dirs:       []string{"/tmp"},
		Entrypoint: []string{"/app.wasm"},
	}, nil
}

// All returns every image that an example names, by its reference, [Native] among them.
func All(ctx context.Context) (map[string]testguest.ImageOpts, error) {
	names, err := Names()
	if err != nil {
		return nil, err
	}
	images := map[string]testguest.ImageOpts{}
	for _, name := range names {
		if images[Reference(name)], err = Image(ctx, name); err != nil {
			return nil, err
		}
	}
	images[Native], err = testguest.BusyboxImage()
	return images, err
}

// build returns the path of a program's module in the cache. The cache keeps it for its sources and its compiler.
func build(ctx context.Context, name string) (string, error) {
	dir, err := guests()
	if err != nil {
		return "", err
	}
	cache, err := repo.Cache("examples")
	if err != nil {
		return "", err
	}
	source := filepath.Join(dir, name)
	// Debian's compiler by its path: a different one earlier in the PATH may lack the target.
	version, compile := []string{"go", "version"}, []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"}
	if _, err := os.Stat(source); os.IsNotExist(err) {
		source += ".rs"
		version, compile = []string{"/usr/bin/rustc", "--version"}, []string{"/usr/bin/rustc", "--target=wasm32-wasi", "-O", "-Cstrip=symbols", source, "-o"}
	}
	key, err := digest(source, version, compile)
	if err != nil {
		return "", err
	}
	result := filepath.Join(cache, name+"-"+key+".wasm")
	if _, err := os.Stat(result); err == nil {
		return result, nil
	}
	partial, err := os.MkdirTemp(cache, ".build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(partial)
	output := filepath.Join(partial, name+".wasm")
	command := exec.CommandContext(ctx, compile[0], append(compile[1:], output)...)
	command.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off")
	if !strings.HasSuffix(source, ".rs") {
		command.Dir = source
	}
	if text, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(compile, " "), err, text)
	}
	return result, os.Rename(output, result)
}

// digest is a short name for all files below the source, the compiler's version and its flags.
func digest(source string, version, compile []string) (string, error) {
	sum := sha256.New()
	compiler, err := exec.Command(version[0], version[1:]...).Output()
	if err != nil {
		return "", fmt.Errorf("%w (hack/deps.sh installs what guests need)", err)
	}
	fmt.Fprintf(sum, "%s%q", compiler, compile)
	err = filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		fmt.Fprintf(sum, "%d:", len(content))
		sum.Write(content)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil))[:16], err
}
