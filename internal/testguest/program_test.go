package testguest

import (
	"bytes"
	"testing"

	wasmtime "github.com/bytecodealliance/wasmtime-go/v44"
)

func TestProgram(t *testing.T) {
	wasm := Program(100)
	if !bytes.Equal(wasm, Program(100)) {
		t.Error("the same program differs")
	}
	engine := wasmtime.NewEngine()
	module, err := wasmtime.NewModule(engine, wasm)
	if err != nil {
		t.Fatal(err)
	}
	linker := wasmtime.NewLinker(engine)
	if err := linker.DefineWasi(); err != nil {
		t.Fatal(err)
	}
	store := wasmtime.NewStore(engine)
	store.SetWasi(wasmtime.NewWasiConfig())
	instance, err := linker.Instantiate(store, module)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := instance.GetFunc(store, "_start").Call(store); err != nil {
		t.Error(err)
	}
	if instance.GetFunc(store, "sleep") == nil {
		t.Error("it cannot sleep")
	}
	code, err := module.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	if each := len(code) / 100; each < 1200 || each > 2000 {
		t.Errorf("it has %d bytes for each function", each)
	}
}
