package testimage

import (
	"encoding/binary"
	"regexp"
	"slices"
	"strings"
)

// Component returns the binary of a component that imports and exports interfaces with those
// names. The interfaces are empty: a parser can read the component, but there is nothing to run
// (https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md).
func Component(imports, exports []string) []byte {
	const instance = 5
	number := func(n int) []byte { return binary.AppendUvarint(nil, uint64(n)) }
	section := func(id byte, items ...[]byte) []byte {
		body := slices.Concat(number(len(items)), slices.Concat(items...))
		return slices.Concat([]byte{id}, number(len(body)), body)
	}
	named := func(name string, rest ...byte) []byte {
		return slices.Concat([]byte{0}, number(len(name)), []byte(name), rest)
	}
	var in, out [][]byte
	for _, name := range imports {
		in = append(in, named(name, instance, 0)) // of type 0
	}
	own := append(number(len(imports)), 0) // its index follows the imported ones; it has no type
	for _, name := range exports {
		out = append(out, named(name, append([]byte{instance}, own...)...))
	}
	return slices.Concat([]byte("\x00asm\x0d\x00\x01\x00"),
		section(7, []byte{0x42, 0}), // the type of an instance that is empty
		section(10, in...),
		section(5, []byte{1, 0}), // an instance that is empty
		section(11, out...))
}

func isComponent(guest []byte) bool {
	return strings.HasPrefix(string(guest), "\x00asm\x0d\x00\x01\x00")
}

// interfaceName is the full name of a WASI interface in a component.
var interfaceName = regexp.MustCompile(`wasi:[a-z]+/[a-z-]+@0\.2\.[0-9]+`)

// interfaces finds the imports and exports of a command component, only by the names in it.
func interfaces(guest []byte) (imports, exports []string) {
	for _, name := range interfaceName.FindAllString(string(guest), -1) {
		into := &imports
		if strings.HasPrefix(name, "wasi:cli/run@") {
			into = &exports
		}
		if !slices.Contains(*into, name) {
			*into = append(*into, name)
		}
	}
	return imports, exports
}
