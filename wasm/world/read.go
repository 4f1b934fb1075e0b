package world

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"github.com/wasmshim/containerd-shim-wasm/wasm"
)

// maxNames is the limit, in bytes, of all import and export sections of a component together. It is about a
// hundred times the size of those of large components.
const maxNames = 1 << 20

// The ids of the sections that are read, and the highest id.
const (
	importSection = 10
	exportSection = 11
	lastSection   = 12
)

// Read reads a component to its end.
func Read(r io.Reader) (World, error) {
	w, err := read(bufio.NewReaderSize(r, 64<<10))
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return World{}, errors.New("the component ends too early")
	}
	if err != nil {
		return World{}, fmt.Errorf("read component: %w", err)
	}
	return w, nil
}

func read(r *bufio.Reader) (World, error) {
	head := make([]byte, wasm.HeadSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return World{}, err
	}
	if string(head) != wasm.ComponentHeader {
		return World{}, fmt.Errorf("it starts with %q, which is no component of a known version", head)
	}
	var w World
	for left := uint32(maxNames); ; {
		id, err := r.ReadByte()
		if err == io.EOF {
			return w, nil
		}
		if err != nil {
			return World{}, err
		}
		size, err := u32(r)
		if err != nil {
			return World{}, fmt.Errorf("size of section %d: %w", id, err)
		}
		if id != importSection && id != exportSection {
			if err := skip(r, id, size); err != nil {
				return World{}, err
			}
			continue
		}
		if size > left {
			return World{}, fmt.Errorf("its imports and exports have more than %d bytes", maxNames)
		}
		left -= size
		if err := w.section(r, id, size); err != nil {
			return World{}, err
		}
	}
}

func skip(r io.Reader, id byte, size uint32) error {
	if id > lastSection {
		return fmt.Errorf("it has a section of the unknown kind %d", id)
	}
	_, err := io.CopyN(io.Discard, r, int64(size))
	return err
}

// section reads the imports or exports in a section.
func (w *World) section(r io.Reader, id byte, size uint32) error {
	content := make([]byte, size)
	if _, err := io.ReadFull(r, content); err != nil {
		return err
	}
	items, what, parse := &w.Imports, "import", (*section).imported
	if id == exportSection {
		items, what, parse = &w.Exports, "export", (*section).exported
	}
	s := section{bytes.NewReader(content)}
	count, err := u32(s)
	for n := uint32(0); n < count && err == nil; n++ {
		var item Item
		if item, err = parse(&s); err == nil {
			*items = append(*items, item)
		}
	}
	if err == nil && s.Len() > 0 {
		err = errors.New("bytes are left over")
	}
	if err != nil {
		// Not %w: the end of a section is not the end of the component.
		return fmt.Errorf("its %s %d cannot be read: %v", what, len(*items), err)
	}
	return nil
}

// section is the unread rest of a section.
type section struct{ *bytes.Reader }

// imported reads an import: its name and its type.
func (s *section) imported() (Item, error) {
	name, err := s.name()
	if err != nil {
		return Item{}, err
	}
	kind, err := s.externType()
	return Item{name, kind}, err
}

// exported reads an export: its name, its sort and, optionally, its type.
func (s *section) exported() (Item, error) {
	name, err := s.name()
	if err != nil {
		return Item{}, err
	}
	kind, err := s.kind()
	if err != nil {
		return Item{}, err
	}
	if _, err := u32(s); err != nil { // its index
		return Item{}, err
	}
	typed, err := s.choice(1)
	if err == nil && typed == 1 {
		_, err = s.externType()
	}
	return Item{name, kind}, err
}

// name reads a name and skips its attributes.
func (s *section) name() (string, error) {
	form, err := s.choice(2)
	if err != nil {
		return "", err
	}
	name, err := s.text()
	if err != nil || form != 2 {
		return name, err
	}
	count, err := u32(s)
	for n := uint32(0); n < count && err == nil; n++ {
		if _, err = s.choice(2); err == nil {
			_, err = s.text()
		}
	}
	return name, err
}

func (s *section) text() (string, error) {
	size, err := u32(s)
	if err != nil {
		return "", err
	}
	if int64(size) > int64(s.Len()) {
		return "", io.ErrUnexpectedEOF
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(s, text); err != nil {
		return "", err
	}
	if !utf8.Valid(text) {
		return "", fmt.Errorf("name %q is not UTF-8", text)
	}
	return string(text), nil
}

// kind reads a sort.
func (s *section) kind() (Kind, error) {
	sort, err := s.choice(5)
	if err != nil {
		return "", err
	}
	if sort != 0 {
		return [...]Kind{1: Function, Value, Type, Component, Instance}[sort], nil
	}
	const module = 0x11
	core, err := s.ReadByte()
	if err == nil && core != module {
		err = fmt.Errorf("%#x is not the sort of a core module", core)
	}
	return CoreModule, err
}

// externType reads a type and returns only its kind.
func (s *section) externType() (Kind, error) {
	kind, err := s.kind()
	if err != nil {
		return "", err
	}
	switch kind {
	case Type: // equal to a type, or a resource
		bound, err := s.choice(1)
		if err != nil || bound == 1 {
			return kind, err
		}
	case Value: // equal to a value, or of a type
		if _, err := s.choice(1); err != nil {
			return "", err
		}
	}
	// An index, or the one byte of a primitive type.
	_, err = u32(s)
	return kind, err
}

// choice reads a byte that selects one of the forms 0 to last.
func (s *section) choice(last byte) (byte, error) {
	b, err := s.ReadByte()
	if err == nil && b > last {
		err = fmt.Errorf("%#x is not of the forms 0 to %d", b, last)
	}
	return b, err
}

// u32 reads a number in LEB128 (https://webassembly.github.io/spec/core/binary/values.html#integers).
func u32(r io.ByteReader) (uint32, error) {
	var n uint64
	for shift := 0; shift < 35; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		n |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			if n > math.MaxUint32 {
				break
			}
			return uint32(n), nil
		}
	}
	return 0, errors.New("a number has more than 32 bits")
}
