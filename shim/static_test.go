package shim

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"runtime"
	"strings"
	"testing"
)

// program is an ELF file of two headers; change may spoil it.
func program(change func(*elf.Header64, []elf.Prog64)) []byte {
	header := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machines[runtime.GOARCH]), Phoff: 64, Phentsize: 56, Phnum: 2}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)
	programs := []elf.Prog64{{Type: uint32(elf.PT_LOAD)}, {Type: uint32(elf.PT_NOTE)}}
	if change != nil {
		change(&header, programs)
	}
	var file bytes.Buffer
	for _, part := range []any{header, programs} {
		if err := binary.Write(&file, binary.LittleEndian, part); err != nil {
			panic(err)
		}
	}
	return file.Bytes()
}

func TestCheckStatic(t *testing.T) {
	for name, test := range map[string]struct {
		file []byte
		want string
	}{
		"static":          {program(nil), ""},
		"static-pie":      {program(func(h *elf.Header64, _ []elf.Prog64) { h.Type = uint16(elf.ET_DYN) }), ""},
		"dynamic":         {program(func(_ *elf.Header64, p []elf.Prog64) { p[1].Type = uint32(elf.PT_INTERP) }), "dynamic loader"},
		"empty":           {nil, "read ELF header"},
		"script":          {[]byte("#!/bin/sh\n" + strings.Repeat("x", 64)), "not an ELF file"},
		"32 bits":         {program(func(h *elf.Header64, _ []elf.Prog64) { h.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS32) }), "another machine"},
		"big-endian":      {program(func(h *elf.Header64, _ []elf.Prog64) { h.Ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB) }), "another machine"},
		"other machine":   {program(func(h *elf.Header64, _ []elf.Prog64) { h.Machine = uint16(elf.EM_S390) }), "another machine"},
		"object":          {program(func(h *elf.Header64, _ []elf.Prog64) { h.Type = uint16(elf.ET_REL) }), "ET_REL"},
		"no headers":      {program(func(h *elf.Header64, _ []elf.Prog64) { h.Phnum = 0 }), "0 program headers"},
		"many headers":    {program(func(h *elf.Header64, _ []elf.Prog64) { h.Phnum = 65535 }), "65535 program headers"},
		"odd headers":     {program(func(h *elf.Header64, _ []elf.Prog64) { h.Phentsize = 32 }), "of 32 bytes"},
		"cut off":         {program(nil)[:100], "program headers"},
		"far away":        {program(func(h *elf.Header64, _ []elf.Prog64) { h.Phoff = 1 << 40 }), "program headers"},
		"before the file": {program(func(h *elf.Header64, _ []elf.Prog64) { h.Phoff = 1 << 63 }), "program headers"},
	} {
		err := checkStatic(bytes.NewReader(test.file))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}

// A real dynamic program has a PT_INTERP header.
func TestCheckStaticOnARealProgram(t *testing.T) {
	file, err := os.Open("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := checkStatic(file); err == nil || !strings.Contains(err.Error(), "dynamic loader") {
		t.Errorf("/bin/sh: %v", err)
	}
}
