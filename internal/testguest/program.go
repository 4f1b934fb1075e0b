package testguest

import (
	"encoding/binary"
	"slices"
)

// Further section ids, instructions and types: core specification 2.0, sections 5.5 and 5.4.
const (
	tableSection   = 4
	memorySection  = 5
	elementSection = 9
	dataSection    = 11
	funcref        = 0x70

	opLoop, opIf, opEnd, opBranchIf, opCall, opCallIndirect, opDrop = 0x03, 0x04, 0x0b, 0x0d, 0x10, 0x11, 0x1a
	opLocalGet, opLocalSet, opLoad, opStore, opConst                = 0x20, 0x21, 0x28, 0x36, 0x41
	opEqual, opLess, opAdd, opMultiply, opExcl                      = 0x46, 0x49, 0x6a, 0x6c, 0x73

	noResult = 0x40 // a block's type

	programMemory = 512 // pages
	programDataAt = 64 << 10
	tableShare    = 4 // one of that many functions is in the table
)

// Program returns a command with that number of functions, similar to a large program in C or Rust: functions of
// different lengths that call one another, a table with a quarter of them, a memory and data. It does the same at
// every size: "_start" calls sixteen functions, from everywhere in the module. "sleep" calls all functions in the
// table, so that most of the code is in memory, prints a dot on standard output, and sleeps for an hour. The compiled
// code has 1.5 KB for each function; with Go's compiler a function has 4.5 KB, with Rust's 1.1 KB.
func Program(functions int) []byte {
	const first = 2 // the imports have the first indices
	var indices []byte
	inTable := (functions + tableShare - 1) / tableShare
	bodies := make([]byte, 0, 512*functions)
	for i := range functions {
		if i%tableShare == 0 {
			indices = append(indices, unsigned(first+i)...)
		}
		bodies = append(bodies, sized(programFunction(i, first+(i*7919+1)%functions))...)
	}
	start, sleep := first+functions, first+functions+1
	return slices.Concat(preamble,
		section(typeSection, []byte{3,
			functionType, 0, 0,
			functionType, 1, i32, 1, i32,
			functionType, 4, i32, i32, i32, i32, 1, i32}),
		section(importSection, []byte{2},
			text("wasi_snapshot_preview1"), text("poll_oneoff"), []byte{0, 2},
			text("wasi_snapshot_preview1"), text("fd_write"), []byte{0, 2}),
		section(funcSection, unsigned(functions+2), slices.Repeat([]byte{1}, functions), []byte{0, 0}),
		section(tableSection, []byte{1, funcref, 0}, unsigned(inTable)),
		section(memorySection, []byte{1, 0}, unsigned(programMemory)),
		section(exportSection, []byte{3},
			text("_start"), []byte{0}, unsigned(start), text("sleep"), []byte{0}, unsigned(sleep), text("memory"), []byte{2, 0}),
		section(elementSection, []byte{1, 0}, constant(0), []byte{opEnd}, unsigned(inTable), indices),
		section(codeSection, unsigned(functions+2), bodies, sized(programStart(inTable)), sized(programSleep(inTable))),
		programData(functions))
}

func sized(body []byte) []byte { return append(unsigned(len(body)), body...) }

// constant pushes n, encoded as signed LEB128.
func constant(n int32) []byte {
	code := []byte{opConst}
	for {
		b := byte(n & 0x7f)
		n >>= 7
		if n == 0 && b&0x40 == 0 || n == -1 && b&0x40 != 0 {
			return append(code, b)
		}
		code = append(code, b|0x80)
	}
}

// programFunction is function number i: arithmetic, memory accesses and a call of another function that is never
// executed.
func programFunction(i, other int) []byte {
	body := []byte{1, 1, i32} // one local
	step := func(n int) {
		body = slices.Concat(body, []byte{opLocalGet, 1}, constant(int32(i*31+n*7+3)), []byte{opMultiply, opLocalGet, 0}, constant(int32(n*i+1)), []byte{opAdd, opExcl, opLocalSet, 1})
		if n%4 != 0 {
			return
		}
		at := constant(int32(8 * ((i + n) % 4096)))
		body = slices.Concat(body, at, []byte{opLocalGet, 1}, at, []byte{opLoad, 2, 0, opAdd, opStore, 2, 0})
	}
	for n := range 8 + i%40 {
		step(n)
	}
	return slices.Concat(body,
		[]byte{opLocalGet, 0}, constant(-559038737), []byte{opEqual, opIf, noResult, opLocalGet, 1, opCall}, unsigned(other), []byte{opLocalSet, 1, opEnd},
		[]byte{opLocalGet, 1, opEnd})
}

func programStart(inTable int) []byte {
	const calls = 16
	body := []byte{0}
	for n := range calls {
		body = slices.Concat(body, constant(1), constant(int32(n*inTable/calls)), []byte{opCallIndirect, 1, 0, opDrop})
	}
	return append(body, opEnd)
}

// programSleep calls the functions in the table, from the first to the last, prints a dot and waits for a clock.
func programSleep(inTable int) []byte {
	const subscription, event, vector, dot, count = 32 << 10, 33 << 10, 34 << 10, 35 << 10, 36 << 10
	const hour = int64(3600 * 1e9) // ns
	store := func(at, value int32) []byte {
		return slices.Concat(constant(at), constant(value), []byte{opStore, 2, 0})
	}
	return slices.Concat([]byte{1, 1, i32},
		[]byte{opLoop, noResult, opLocalGet, 0, opLocalGet, 0, opCallIndirect, 1, 0, opDrop},
		[]byte{opLocalGet, 0}, constant(1), []byte{opAdd, opLocalSet, 0},
		[]byte{opLocalGet, 0}, constant(int32(inTable)), []byte{opLess, opBranchIf, 0, opEnd},
		store(dot, '.'), store(vector, dot), store(vector+4, 1),
		constant(1), constant(vector), constant(1), constant(count), []byte{opCall, 1, opDrop},
		// A subscription to a clock (WASI preview 1): the fields that stay 0 select that, and which clock.
		store(subscription+24, int32(hour&0xffffffff)), store(subscription+28, int32(hour>>32)),
		constant(subscription), constant(event), constant(1), constant(count), []byte{opCall, 0, opDrop, opEnd})
}

// programData stands for the tables and texts of such a program: 64 bytes for each function.
func programData(functions int) []byte {
	const most = programMemory<<16 - programDataAt
	content := make([]byte, 0, min(64*functions, most))
	for i := uint64(1); len(content) < cap(content); i++ {
		content = binary.LittleEndian.AppendUint64(content, i*0x9e3779b97f4a7c15)
	}
	return section(dataSection, []byte{1, 0}, constant(programDataAt), []byte{opEnd}, sized(content))
}
