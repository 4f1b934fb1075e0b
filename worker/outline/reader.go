package outline

import "fmt"

// reader reads the rest of a module or a section. After an error it returns zeros.
type reader struct {
	left []byte
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	r.left = nil
}

func (r *reader) byte() byte {
	b := r.bytes(1)
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func (r *reader) bytes(n uint32) []byte {
	if int64(n) > int64(len(r.left)) {
		r.fail("it ends too early")
		return nil
	}
	b := r.left[:n]
	r.left = r.left[n:]
	return b
}

// u32 reads a number in LEB128
// (https://webassembly.github.io/spec/core/binary/values.html#integers).
func (r *reader) u32() uint32 {
	var n uint64
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		n |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			if n > 0xffffffff {
				break
			}
			return uint32(n)
		}
	}
	r.fail("a number has more than 32 bits")
	return 0
}

func (r *reader) name() string { return string(r.bytes(r.u32())) }

// functionType reads a function type, and reports whether it takes no arguments.
func (r *reader) functionType() bool {
	const function = 0x60
	if form := r.byte(); form != function {
		r.fail("a type is of the unknown form %#x", form)
		return false
	}
	parameters := r.valueTypes()
	r.valueTypes()
	return parameters == 0
}

func (r *reader) valueTypes() uint32 {
	count := r.u32()
	for n := count; n > 0 && r.err == nil; n-- {
		r.valueType()
	}
	return count
}

// valueType reads a one-byte value type: a number, a vector or a nullable reference. Other references name a
// type, and are left to the engine.
func (r *reader) valueType() {
	switch b := r.byte(); b {
	case 0x7f, 0x7e, 0x7d, 0x7c, 0x7b, // i32, i64, f32, f64, v128
		0x70, 0x6f, 0x69: // funcref, externref, exnref
	default:
		r.fail("a value is of the unknown type %#x", b)
	}
}

// limits reads the limits of a 32-bit memory or table.
func (r *reader) limits() {
	flags := r.byte()
	const hasMaximum, isShared = 1, 2
	if flags&^(hasMaximum|isShared) != 0 {
		r.fail("limits are of the unknown form %#x", flags)
	}
	r.u32()
	if flags&hasMaximum != 0 {
		r.u32()
	}
}
