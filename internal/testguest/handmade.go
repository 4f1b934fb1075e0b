package testguest

import (
	"encoding/binary"
	"slices"
)

// handmade are the guests that no compiler makes: a shim must refuse them with a clear error.
var handmade = map[string]func() []byte{
	"noexports":      noExports,
	"unknownimports": unknownImports,
	"component":      component,
	"truncated":      truncated,
	"text":           func() []byte { return []byte("this is not a wasm module, only named like one\n") },
	"empty":          func() []byte { return nil },
}

// Section ids and type codes: WebAssembly core specification 2.0, section 5.5 and 5.3.
const (
	typeSection   = 1
	importSection = 2
	funcSection   = 3
	exportSection = 7
	codeSection   = 10

	functionType = 0x60
	i32          = 0x7f
)

var preamble = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// unsigned encodes n as LEB128.
func unsigned(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }

func section(id byte, content ...[]byte) []byte {
	body := slices.Concat(content...)
	return slices.Concat([]byte{id}, unsigned(len(body)), body)
}

func text(s string) []byte { return append(unsigned(len(s)), s...) }

// noArguments is a type section with the one type ()→().
func noArguments() []byte { return section(typeSection, []byte{1, functionType, 0, 0}) }

// emptyBody is a function without locals that returns at once, with its size before it.
var emptyBody = []byte{2, 0, 0x0b}

// noExports is a valid module with a function that is not exported.
func noExports() []byte {
	return slices.Concat(preamble, noArguments(),
		section(funcSection, []byte{1, 0}),
		section(codeSection, []byte{1}, emptyBody))
}

// unknownImports is a valid command that asks for env.foo and wasi_snapshot_preview1.nonsense.
func unknownImports() []byte {
	return importing([2]string{"env", "foo"}, [2]string{"wasi_snapshot_preview1", "nonsense"})
}

// Importing returns a valid command that imports the named functions of a module.
func Importing(module string, names ...string) []byte {
	var imports [][2]string
	for _, name := range names {
		imports = append(imports, [2]string{module, name})
	}
	return importing(imports...)
}

// importing is a valid command that imports functions, each given as a module's name and its own.
func importing(imports ...[2]string) []byte {
	listed := unsigned(len(imports))
	for _, i := range imports {
		listed = slices.Concat(listed, text(i[0]), text(i[1]), []byte{0, 0})
	}
	return slices.Concat(preamble, noArguments(),
		section(importSection, listed),
		section(funcSection, []byte{1, 0}),
		section(exportSection, []byte{1}, text("_start"), []byte{0}, unsigned(len(imports))),
		section(codeSection, []byte{1}, emptyBody))
}

// component is the smallest component: version 13, layer 1, no sections.
func component() []byte { return []byte{0, 'a', 's', 'm', 0x0d, 0, 1, 0} }

// truncated ends in the middle of its code section.
func truncated() []byte {
	whole := Big(4096)
	return whole[:len(whole)/2]
}

// Big returns a command that does nothing and is at least size bytes long. All of it is code that a
// compiler has to process: functions of 4 KiB, none of which it can leave out.
func Big(size int) []byte {
	const bodySize = 4 << 10
	// local.get 0; i32.const 3; i32.mul; local.get 0; i32.xor; local.set 0
	step := []byte{0x20, 0, 0x41, 3, 0x6c, 0x20, 0, 0x73, 0x21, 0}
	work := slices.Concat([]byte{0}, slices.Repeat(step, bodySize/len(step)), []byte{0x20, 0, 0x0b})
	work = slices.Concat(unsigned(len(work)), work)
	count := max(1, (size+len(work)-1)/len(work))

	return slices.Concat(preamble,
		section(typeSection, []byte{2, functionType, 0, 0, functionType, 1, i32, 1, i32}),
		section(funcSection, unsigned(count+1), []byte{0}, slices.Repeat([]byte{1}, count)),
		section(exportSection, []byte{1}, text("_start"), []byte{0, 0}),
		section(codeSection, unsigned(count+1), emptyBody, slices.Repeat(work, count)))
}
