package seccomp

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// syscallData is the kernel's input to a filter.
type syscallData struct {
	arch uint32
	nr   uint32
	args [maxArgs]uint64
}

// simulator runs filter programs as the kernel would.
type simulator struct{ vm *bpf.VM }

func simulate(t testing.TB, program []unix.SockFilter) *simulator {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(program))
	for i, in := range program {
		raw[i] = bpf.RawInstruction{Op: in.Code, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	instructions, known := bpf.Disassemble(raw)
	if !known {
		t.Fatalf("the program has instructions that are none: %v", instructions)
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatalf("the program is invalid: %v", err)
	}
	return &simulator{vm}
}

// run returns the filter's return value. The machine of x/net/bpf loads words in
// network order, the kernel's filter in the host's order. So run writes each word in
// network order at its offset in struct seccomp_data.
func (s *simulator) run(t testing.TB, d syscallData) uint32 {
	t.Helper()
	packet := make([]byte, 64)
	put := func(offset int, v uint32) { binary.BigEndian.PutUint32(packet[offset:], v) }
	put(offsetNr, d.nr)
	put(offsetArch, d.arch)
	for i, arg := range d.args {
		put(offsetArgs+8*i, uint32(arg))
		put(offsetArgs+8*i+4, uint32(arg>>32))
	}
	value, err := s.vm.Run(packet)
	if err != nil {
		t.Fatalf("run %+v: %v", d, err)
	}
	return uint32(value)
}
