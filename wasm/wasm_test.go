package wasm_test

import (
	"strings"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/wasm"
)

func TestHead(t *testing.T) {
	elf := func(abi, flags string) string {
		return "\x7fELF\x02\x01\x01" + abi + strings.Repeat("\x00", 0x30-8) + flags
	}
	for _, test := range []struct {
		head                                          string
		module, component, elf, compiled, ofComponent bool
	}{
		{head: ""},
		{head: "\x00asm"},
		{head: "hello, world"},
		{head: wasm.ModuleHeader, module: true},
		{head: wasm.ModuleHeader + "more", module: true},
		{head: wasm.ModuleHeader[:7]},
		{head: "\x00asm\x02\x00\x00\x00"},
		{head: wasm.ComponentHeader, component: true},
		{head: "\x00asm\x0e\x00\x01\x00more", component: true},
		{head: wasm.ComponentHeader[:7]},
		{head: "\x7fELF", elf: true},
		{head: elf("\x00", "\x02"), elf: true},
		{head: elf("\xc8", "")[:8], elf: true, compiled: true},
		{head: elf("\xc8", "\x01"), elf: true, compiled: true},
		{head: elf("\xc8", "\x02"), elf: true, compiled: true, ofComponent: true},
	} {
		for what, is := range map[string]struct {
			of   func([]byte) bool
			want bool
		}{
			"a module":             {wasm.IsModule, test.module},
			"a component":          {wasm.IsComponent, test.component},
			"ELF":                  {wasm.IsELF, test.elf},
			"compiled":             {wasm.IsCompiled, test.compiled},
			"a compiled component": {wasm.IsCompiledComponent, test.ofComponent},
		} {
			if got := is.of([]byte(test.head)); got != is.want {
				t.Errorf("%q is %s: %v, want %v", test.head, what, got, is.want)
			}
		}
	}
}
