package testguest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bytecodealliance/wasmtime-go/v44"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// call runs an exported function of a guest under wasmtime, with root as its "/". It returns
// the guest's standard output and the error of the call.
func call(t *testing.T, root, guest, function string, args ...string) (string, error) {
	t.Helper()
	engine := wasmtime.NewEngine()
	module, err := wasmtime.NewModuleFromFile(engine, Build(t, guest))
	if err != nil {
		t.Fatal(err)
	}
	linker := wasmtime.NewLinker(engine)
	if err := linker.DefineWasi(); err != nil {
		t.Fatal(err)
	}
	stdout := filepath.Join(t.TempDir(), "stdout")
	config := wasmtime.NewWasiConfig()
	config.SetArgv(append([]string{guest}, args...))
	config.SetEnv([]string{"NAME"}, []string{"value"})
	if err := config.SetStdoutFile(stdout); err != nil {
		t.Fatal(err)
	}
	if err := config.PreopenDir(root, "/", wasmtime.DIR_READ|wasmtime.DIR_WRITE, wasmtime.FILE_READ|wasmtime.FILE_WRITE); err != nil {
		t.Fatal(err)
	}
	store := wasmtime.NewStore(engine)
	store.Limiter(64<<20, -1, -1, -1, -1)
	store.SetWasi(config)
	instance, err := linker.Instantiate(store, module)
	if err != nil {
		return "", err
	}
	f := instance.GetFunc(store, function)
	if f == nil {
		t.Fatalf("%s does not export %s", guest, function)
	}
	_, err = f.Call(store)
	text, readErr := os.ReadFile(stdout)
	if readErr != nil {
		t.Fatal(readErr)
	}
	return string(text), err
}

// exitCode is the result of a call: 0 when it returned, -1 when it trapped.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := err.(*wasmtime.Error); ok {
		if code, ok := e.ExitStatus(); ok {
			return int(code)
		}
	}
	return -1
}

func TestHello(t *testing.T) {
	for guest, want := range map[string]string{
		"hello-c":    "hello from C\n",
		"hello-go":   "hello from Go\n",
		"hello-rust": "hello from Rust\n",
	} {
		if got, err := call(t, t.TempDir(), guest, "_start"); exitCode(err) != 0 || got != want {
			t.Errorf("%s printed %q and ended with %v, want %q", guest, got, err, want)
		}
	}
	got, err := exec.Command(Build(t, "hello-native")).Output()
	if err != nil || string(got) != "hello from native C\n" {
		t.Errorf("hello-native printed %q and ended with %v", got, err)
	}
}

// The probe's subcommands run in this order on one root.
func TestProbe(t *testing.T) {
	root := t.TempDir()
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"exit", "42"}, 42, ""},
		{[]string{"env"}, 0, "NAME=value\n"},
		{[]string{"args", "a b", ""}, 0, "a b\n\n"},
		{[]string{"pwd"}, 0, "/\n"},
		{[]string{"ls", "/"}, 0, ""},
		{[]string{"write", "/file", "one"}, 0, ""},
		{[]string{"append", "/file", " two"}, 0, ""},
		{[]string{"read", "/file"}, 0, "one two"},
		{[]string{"copy", "/file", "/copy"}, 0, ""},
		{[]string{"stat", "/copy"}, 0, "file 7\n"},
		{[]string{"rm", "/copy"}, 0, ""},
		{[]string{"stat", "/file"}, 0, "file 7\n"},
		{[]string{"mkdir", "/folder"}, 0, ""},
		{[]string{"rename", "/file", "/folder/moved"}, 0, ""},
		{[]string{"symlink", "folder/moved", "/link"}, 0, ""},
		{[]string{"readlink", "/link"}, 0, "folder/moved\n"},
		{[]string{"stat", "/link"}, 0, "symlink 12\n"},
		{[]string{"link", "/folder/moved", "/second"}, 0, ""},
		{[]string{"ls", "/"}, 0, "folder\nlink\nsecond\n"},
		{[]string{"rm", "/folder"}, 1, ""},
		{[]string{"rm", "/folder/moved"}, 0, ""},
		{[]string{"read", "/link"}, 1, ""},
		{[]string{"rm", "/link"}, 0, ""},
		{[]string{"sleep", "0.001"}, 0, "sleeping\nawake\n"},
		{[]string{"grow", "8"}, 0, "grew 8 MiB\n"},
		{[]string{"grow"}, 3, "grew 63 MiB\n"},
		{[]string{"trap"}, -1, ""},
		{[]string{"deep"}, -1, ""},
		{[]string{"nonsense"}, 2, ""},
		{[]string{"read"}, 2, ""},
		{[]string{"tries", "/tries", "2"}, 3, "try 1\n"},
		{[]string{"tries", "/tries", "2"}, 0, "try 2\n"},
		{[]string{"await", "/tries", ",", "await", "/tries", "xx", ",", "say", "both"}, 0, "both\n"},
		{[]string{"say", "one", ",", "exit", "4", ",", "say", "two"}, 4, "one\n"},
	} {
		got, err := call(t, root, "probe", "_start", test.args...)
		if exitCode(err) != test.code || got != test.want {
			t.Errorf("probe %q printed %q and ended with %v, want %q and code %d", test.args, got, err, test.want, test.code)
		}
	}
}

func TestOtherFunction(t *testing.T) {
	got, err := call(t, t.TempDir(), "probe", "other")
	if exitCode(err) != 0 || got != "other function\n" {
		t.Errorf("other printed %q and ended with %v", got, err)
	}
}

// A guest that must be refused has exactly one defect.
func TestHandmade(t *testing.T) {
	engine := wasmtime.NewEngine()
	for _, name := range []string{"noexports", "unknownimports"} {
		if _, err := wasmtime.NewModuleFromFile(engine, Build(t, name)); err != nil {
			t.Errorf("%s is no valid module: %v", name, err)
		}
	}
	for _, name := range []string{"truncated", "text", "empty", "component"} {
		if _, err := wasmtime.NewModuleFromFile(engine, Build(t, name)); err == nil {
			t.Errorf("%s is a valid module", name)
		}
	}
	if _, err := call(t, t.TempDir(), "unknownimports", "_start"); err == nil || !strings.Contains(err.Error(), "env::foo") {
		t.Errorf("unknownimports fails with %v", err)
	}
}

func TestBig(t *testing.T) {
	const size = 256 << 10
	module := Big(size)
	if len(module) < size || len(module) > 2*size {
		t.Errorf("Big(%d) has %d bytes", size, len(module))
	}
	if err := wasmtime.ModuleValidate(wasmtime.NewEngine(), module); err != nil {
		t.Error(err)
	}
}

func TestFileKeepsWhatItBuilt(t *testing.T) {
	first, err := os.Stat(Build(t, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.Stat(Build(t, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(first, second) || !first.ModTime().Equal(second.ModTime()) {
		t.Error("the second call built the probe again")
	}
}

func TestFileNamesTheUnknownGuest(t *testing.T) {
	if _, err := File("nonsense"); err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("got error %v", err)
	}
}

func TestImage(t *testing.T) {
	read := func(path string) []byte {
		t.Helper()
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	const ref = "example.com/tests/hello:latest"
	first := Wasm(t, ref, "hello-c", "argument")
	if !bytes.Equal(read(first), read(Wasm(t, ref, "hello-c", "argument"))) {
		t.Error("the same options give different images")
	}
	image, err := tarball.ImageFromPath(first, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(config.Config.Entrypoint, []string{"/app.wasm"}) || !slices.Equal(config.Config.Cmd, []string{"argument"}) {
		t.Errorf("config is %+v", config.Config)
	}
}
