package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/bytecodealliance/wasmtime-go/v44"
)

// adapted is the import module that an adapter implements.
const adapted = "wasi_snapshot_preview1"

// componentNew makes a component of a core module with the adapter at the given path.
func componentNew(toolsPath, adapterPath string, core []byte) ([]byte, error) {
	adapter, err := os.ReadFile(adapterPath)
	if err != nil {
		return nil, err
	}
	t, err := load(toolsPath)
	if err != nil {
		return nil, fmt.Errorf("load wasm-tools: %w", err)
	}
	return t.componentNew(core, adapter)
}

// tools is wasm-tools as jco ships it: the core modules of a component. Its main module is called here
// with the canonical ABI (component-model/CanonicalABI.md).
type tools struct {
	store    *wasmtime.Store
	instance *wasmtime.Instance
	memory   *wasmtime.Memory
}

func load(path string) (*tools, error) {
	engine := wasmtime.NewEngine()
	module, err := compiled(engine, path)
	if err != nil {
		return nil, err
	}
	linker := wasmtime.NewLinker(engine)
	if err := linker.DefineWasi(); err != nil {
		return nil, err
	}
	wasi := wasmtime.NewWasiConfig()
	wasi.InheritStderr()
	t := &tools{store: wasmtime.NewStore(engine)}
	t.store.SetWasi(wasi)
	if t.instance, err = linker.Instantiate(t.store, module); err != nil {
		return nil, err
	}
	memory := t.instance.GetExport(t.store, "memory")
	if memory == nil || memory.Memory() == nil {
		return nil, errors.New("it exports no memory")
	}
	t.memory = memory.Memory()
	return t, nil
}

// compiled keeps compiled code beside the module, because compiling takes far longer than everything
// else. wasmtime refuses the code of another version or of another engine; then the code is compiled
// again.
func compiled(engine *wasmtime.Engine, path string) (*wasmtime.Module, error) {
	kept := path + ".compiled"
	if module, err := wasmtime.NewModuleDeserializeFile(engine, kept); err == nil {
		return module, nil
	}
	module, err := wasmtime.NewModuleFromFile(engine, path)
	if err != nil {
		return nil, err
	}
	code, err := module.Serialize()
	if err != nil {
		return nil, err
	}
	partial := fmt.Sprintf("%s.%d", kept, os.Getpid())
	if err := os.WriteFile(partial, code, 0o644); err != nil {
		return nil, err
	}
	return module, os.Rename(partial, kept)
}

// componentNew calls component-new: func(binary: list<u8>, adapters: option<list<tuple<string,
// list<u8>>>>) -> result<list<u8>, string>.
func (t *tools) componentNew(core, adapter []byte) ([]byte, error) {
	var tuple []byte
	for _, content := range [][]byte{[]byte(adapted), adapter} {
		at, err := t.give(content, 1)
		if err != nil {
			return nil, err
		}
		tuple = binary.LittleEndian.AppendUint32(tuple, uint32(at))
		tuple = binary.LittleEndian.AppendUint32(tuple, uint32(len(content)))
	}
	adapters, err := t.give(tuple, 4)
	if err != nil {
		return nil, err
	}
	module, err := t.give(core, 1)
	if err != nil {
		return nil, err
	}
	const some, count = 1, 1
	at, err := t.call("local:wasm-tools/tools#component-new", module, int32(len(core)), int32(some), adapters, int32(count))
	if err != nil {
		return nil, err
	}
	return t.result(at)
}

// give copies content into the module's memory and returns its address.
func (t *tools) give(content []byte, align int32) (int32, error) {
	at, err := t.call("cabi_realloc", int32(0), int32(0), align, int32(len(content)))
	if err != nil {
		return 0, err
	}
	to, err := t.bytes(uint32(at), uint32(len(content)))
	if err != nil {
		return 0, err
	}
	copy(to, content)
	return at, nil
}

// result reads a result<list<u8>, string>: a byte that is 0 for the list, then the address and the
// length.
func (t *tools) result(at int32) ([]byte, error) {
	header, err := t.bytes(uint32(at), 12)
	if err != nil {
		return nil, err
	}
	content, err := t.bytes(binary.LittleEndian.Uint32(header[4:]), binary.LittleEndian.Uint32(header[8:]))
	if err != nil {
		return nil, err
	}
	if header[0] != 0 {
		return nil, errors.New(string(content))
	}
	return append([]byte(nil), content...), nil
}

// bytes returns a part of the module's memory, valid until the next call.
func (t *tools) bytes(at, length uint32) ([]byte, error) {
	memory := t.memory.UnsafeData(t.store)
	if uint64(at)+uint64(length) > uint64(len(memory)) {
		return nil, fmt.Errorf("it gave %d bytes at %d, outside of its memory", length, at)
	}
	return memory[at:][:length:length], nil
}

func (t *tools) call(name string, args ...any) (int32, error) {
	function := t.instance.GetFunc(t.store, name)
	if function == nil {
		return 0, fmt.Errorf("it exports no function %s", name)
	}
	value, err := function.Call(t.store, args...)
	if err != nil {
		return 0, err
	}
	at, ok := value.(int32)
	if !ok {
		return 0, fmt.Errorf("%s returned %T", name, value)
	}
	return at, nil
}
