package engine_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// headers returns the folder in which wasmtime-go keeps the headers of the library that it links.
func headers(t *testing.T) string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/bytecodealliance/wasmtime-go/v44").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(dir)), "build", "include")
}

// compare compiles testdata/headers.c below dir, which may be a copy.
func compare(t *testing.T, dir string) (string, error) {
	t.Helper()
	output, err := exec.Command("gcc", "-std=gnu11", "-Wall", "-Werror", "-fsyntax-only",
		"-I", headers(t), filepath.Join(dir, "engine", "testdata", "headers.c")).CombinedOutput()
	return string(output), err
}

// Our declarations of wasmtime's C API agree with the headers of the linked library. After an upgrade a
// failure names the differences: see CONTRIBUTING.md.
func TestHeaders(t *testing.T) {
	if output, err := compare(t, ".."); err != nil {
		t.Errorf("capi.h is not as wasmtime's headers: %v\n%s", err, output)
	}
}

// TestHeaders notices functions and a value that differ from wasmtime's.
func TestHeadersDiffer(t *testing.T) {
	for file, change := range map[string][2]string{
		"engine/capi.h":         {"wasm_threads_set(wasm_config_t *, bool)", "wasm_threads_set(wasm_config_t *, long)"},
		"component/capi.h":      {"bool wasmtime_component_func_type_async(", "void *wasmtime_component_func_type_async("},
		"component/capitypes.h": {"VAL_RESULT = 19", "VAL_RESULT = 20"},
		"preview1/capi.h":       {"size_t wasmtime_memory_data_size(", "uint32_t wasmtime_memory_data_size("},
		"preview1/capitypes.h":  {"room[3]", "room[4]"},
	} {
		t.Run(file, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"engine/capi.h", "component/capi.h", "component/capitypes.h", "preview1/capi.h", "preview1/capitypes.h", "engine/testdata/headers.c"} {
				content, err := os.ReadFile(filepath.Join("..", name))
				if err != nil {
					t.Fatal(err)
				}
				text := string(content)
				if name == file {
					if text = strings.Replace(text, change[0], change[1], 1); text == string(content) {
						t.Fatalf("%s holds no %q", name, change[0])
					}
				}
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := compare(t, dir); err == nil {
				t.Errorf("%s with %q is not noticed", file, change[1])
			}
		})
	}
}
