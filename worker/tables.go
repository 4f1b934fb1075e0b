package worker

import (
	"encoding/binary"
	"fmt"
	goruntime "runtime"

	"github.com/wasmshim/containerd-shim-wasm/wasm"
	"github.com/wasmshim/containerd-shim-wasm/worker/control"
)

// maxTable is how many targets a br_table may have at most where checkTables applies. The compiler branches
// over the table, of four bytes for each target, with an instruction that reaches 1 MiB, and does not notice
// if that is too short (GHSA-mghf-wjfp-p5xm, open in wasmtime 44). Three quarters of the 1 MiB are left for
// other code that the compiler may put in between. Real programs have some thousands of targets.
const maxTable = 1 << 16

// checkTables refuses a guest that the engine would compile wrongly for the node's processor: its code could
// jump to an address where no instruction begins.
func checkTables(order control.Compile, content []byte) error {
	if goruntime.GOARCH != "arm64" || !hugeTable(content) {
		return nil
	}
	return fmt.Errorf("%s has a br_table with more than %d targets, which this engine compiles wrongly for arm64 (GHSA-mghf-wjfp-p5xm): "+
		"split the switch that it comes from, or run it on a node of another architecture", order.Name, maxTable)
}

// Sections (https://webassembly.github.io/spec/core/binary/modules.html#sections and
// https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md).
const (
	codeSection            = 10
	coreModuleSection      = 1 // in a component
	nestedSection          = 4 // a component in a component
	opBrTable              = 0x0e
	scansPerByte           = 16
	smallestBlock          = 2 // bytes: the instruction and its type
	maxLEB                 = 5
	lastByteOfLEB     byte = 0x0f
)

// hugeTable reports whether a module, or one inside a component, may have a br_table with more than maxTable
// targets. It may be wrong about invalid modules, and about a function crafted to look as if it had one.
// See RATIONALE.md, "How are large branch tables found on arm64?"
func hugeTable(content []byte) bool {
	for left := [][]byte{content}; len(left) > 0; {
		whole := left[len(left)-1]
		left = left[:len(left)-1]
		inComponent := wasm.IsComponent(whole)
		for rest := whole[min(wasm.HeadSize, len(whole)):]; len(rest) > 0; {
			id := rest[0]
			var section []byte
			section, rest = sized(rest[1:])
			switch {
			case inComponent && (id == coreModuleSection || id == nestedSection):
				left = append(left, section)
			case !inComponent && id == codeSection && hugeTableInCode(section):
				return true
			}
		}
	}
	return false
}

func hugeTableInCode(section []byte) bool {
	_, size := leb(section)
	for rest := section[size:]; len(rest) > 0; {
		var body []byte
		body, rest = sized(rest)
		if hugeTableInBody(body) {
			return true
		}
	}
	return false
}

// hugeTableInBody examines each byte that might be a br_table: only a decoder of all instructions could tell
// which bytes are instructions. A target has at least one byte and names one of the enclosing blocks, so few
// candidates remain. If the search takes too long, the answer is yes.
func hugeTableInBody(body []byte) bool {
	if len(body) <= maxTable {
		return false
	}
	work := scansPerByte * len(body)
	for at, b := range body {
		if b != opBrTable {
			continue
		}
		targets, size := leb(body[at+1:])
		if size == 0 || targets <= maxTable || int(targets) >= len(body)-at {
			continue
		}
		looked, all := blocks(body[at+1+size:], int(targets)+1, uint32(at/smallestBlock))
		if work -= looked; all || work < 0 {
			return true
		}
	}
	return false
}

// blocks reports whether count numbers follow, none above highest, and how many of them it has read.
func blocks(code []byte, count int, highest uint32) (looked int, all bool) {
	for looked < count {
		label, size := leb(code)
		looked++
		if size == 0 || label > highest {
			return looked, false
		}
		code = code[size:]
	}
	return looked, true
}

// sized splits off the content after a size field. If b is too short, the content is the rest of b.
func sized(b []byte) (content, rest []byte) {
	length, size := leb(b)
	if size == 0 {
		return b, nil
	}
	b = b[size:]
	n := min(int64(length), int64(len(b)))
	return b[:n], b[n:]
}

// leb decodes an unsigned LEB128 of 32 bits and returns its size, 0 if it is invalid.
func leb(b []byte) (value uint32, size int) {
	n, size := binary.Uvarint(b[:min(maxLEB, len(b))])
	if size <= 0 || size == maxLEB && b[maxLEB-1] > lastByteOfLEB {
		return 0, 0
	}
	return uint32(n), size
}
