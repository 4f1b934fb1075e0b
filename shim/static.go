package shim

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
)

// maxProgramHeaders is more than any static program has (elf(5)).
const maxProgramHeaders = 128

// machines maps the architectures that we are built for to their ELF names.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkStatic refuses a file that is not an ELF program for this machine or that asks for a dynamic loader
// (PT_INTERP). It reads only the two kinds of headers and trusts none of their sizes; package debug/elf would
// read tables that are not needed.
func checkStatic(file io.ReaderAt) error {
	var header elf.Header64
	if err := readAt(file, 0, &header); err != nil {
		return fmt.Errorf("read ELF header: %w", err)
	}
	ident := header.Ident
	switch kind := elf.Type(header.Type); {
	case !bytes.HasPrefix(ident[:], []byte(elf.ELFMAG)):
		return errors.New("not an ELF file")
	case elf.Class(ident[elf.EI_CLASS]) != elf.ELFCLASS64, elf.Data(ident[elf.EI_DATA]) != elf.ELFDATA2LSB,
		elf.Machine(header.Machine) != machines[runtime.GOARCH]:
		return errors.New("an ELF file for another machine")
	case kind != elf.ET_EXEC && kind != elf.ET_DYN:
		return fmt.Errorf("an ELF file of type %s, not a program", kind)
	case header.Phnum == 0 || header.Phnum > maxProgramHeaders || int(header.Phentsize) != binary.Size(elf.Prog64{}):
		return fmt.Errorf("an ELF file with %d program headers of %d bytes", header.Phnum, header.Phentsize)
	}
	programs := make([]elf.Prog64, header.Phnum)
	if err := readAt(file, int64(header.Phoff), programs); err != nil {
		return fmt.Errorf("read ELF program headers: %w", err)
	}
	for _, program := range programs {
		if elf.ProgType(program.Type) == elf.PT_INTERP {
			return errors.New("not a static program: it asks for a dynamic loader")
		}
	}
	return nil
}

// readAt decodes data, a fixed-size value, from offset on.
func readAt(file io.ReaderAt, offset int64, data any) error {
	return binary.Read(io.NewSectionReader(file, offset, int64(binary.Size(data))), binary.LittleEndian, data)
}
