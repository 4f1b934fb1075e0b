package worker

import (
	"os"
	"strings"
	"testing"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/wasmshim/containerd-shim-wasm/internal/testguest"
)

// switching returns a module with a br_table of that many targets, between other functions.
func switching(t *testing.T, targets int, in string) []byte {
	t.Helper()
	module := `(memory 1) (func (drop (i32.const -1)))
		(func (param i32) (block (block (br_table` + strings.Repeat(" 1", targets) + ` 0 (local.get 0)))))
		(func (drop (f64.const 1.5)))`
	wasm, err := wasmtime.Wat2Wasm(strings.Replace(in, "MODULE", module, 1))
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func TestHugeTable(t *testing.T) {
	for where, text := range map[string]string{
		"module":                `(module MODULE)`,
		"component":             `(component (core module) (core module MODULE))`,
		"component's component": `(component (component (core module) (core module MODULE)))`,
	} {
		if hugeTable(switching(t, maxTable, text)) {
			t.Errorf("%s: %d targets are too many", where, maxTable)
		}
		if !hugeTable(switching(t, maxTable+1, text)) {
			t.Errorf("%s: %d targets are not noticed", where, maxTable+1)
		}
	}
}

// Programs from compilers have no huge table, however large their functions are.
func TestHugeTableIsNotSeenInPrograms(t *testing.T) {
	for _, name := range []string{"hello-c", "hello-go", "hello-rust", "probe"} {
		wasm, err := os.ReadFile(testguest.Build(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if hugeTable(wasm) {
			t.Errorf("%s has one", name)
		}
	}
	if hugeTable(testguest.Program(2000)) {
		t.Error("the large program has one")
	}
}

// A function that looks like a table at each byte is refused in a short time.
func TestHugeTableEnds(t *testing.T) {
	// The targets are as large as the number of preceding blocks allows, and each table ends at an invalid
	// number.
	const block, tables = "\x02\x40", "\x0e\x81\x80\x04"
	body := strings.Repeat(block, 1<<17) + strings.Repeat(strings.Repeat(tables, 32000)+"\xff\xff\xff\xff\xff", 30)
	if !hugeTableInBody([]byte(body)) {
		t.Error("it is looked at for ever, or taken for a plain function")
	}
}

func FuzzHugeTable(f *testing.F) {
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x0a\x06\x01\x04\x00\x0e\x80\x0b"))
	f.Add([]byte("\x00asm\x0d\x00\x01\x00\x01\x08\x00asm\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		if hugeTable(wasm) && len(wasm) <= maxTable {
			t.Errorf("%d bytes hold a table of more than %d targets", len(wasm), maxTable)
		}
	})
}
