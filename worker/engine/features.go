package engine

import (
	"fmt"
	"regexp"
	"strings"
)

// feature is a part of WebAssembly that Configure leaves out.
type feature struct {
	name    string
	refusal *regexp.Regexp // wasmtime's error for a guest that uses it
	remedy  string         // what the guest's author can do
}

// leftOut are the features that are switched off, and one that wasmtime has never had.
var leftOut = []feature{
	{"threads and shared memory", regexp.MustCompile(`threads (must be enabled|support is not enabled)`), "build it for wasm32-wasip1, not wasm32-wasip1-threads, and without -pthread"},
	{"memory64", regexp.MustCompile(`memory64 must be enabled`), "build it for wasm32, not wasm64"},
	{"multiple memories", regexp.MustCompile(`multiple memories|multi-memory`), "build it with one memory (wasm-opt --multi-memory-lowering)"},
	{"relaxed SIMD", regexp.MustCompile(`relaxed SIMD support is not enabled`), "build it without -mrelaxed-simd; SIMD itself (-msimd128) is there"},
	{"garbage collection", regexp.MustCompile(`without the gc feature|gc support is not enabled|requires .gc. proposal`), "build it with a compiler that manages memory itself"},
	{"typed function references", regexp.MustCompile(`function[- ]references (required|support is not enabled)`), "build it without -mgc or similar"},
	{"wide arithmetic", regexp.MustCompile(`wide arithmetic support is not enabled`), "build it without -mwide-arithmetic"},
	{"custom page sizes", regexp.MustCompile(`custom page sizes proposal must be enabled`), "build it with pages of 64 KiB"},
	{"stack switching", regexp.MustCompile(`stack switching (is disabled|support is not enabled)`), "build it without stack switching"},
	{"legacy exceptions", regexp.MustCompile(`legacy_exceptions feature required`), "build it with exnref (-mllvm -wasm-use-legacy-eh=false), or translate it (wasm-opt --translate-to-exnref)"},
	{"asynchronous components", regexp.MustCompile(`component model (async|more async builtins|threading)`), "build it for WASI 0.2"},
}

// Uncaught reports whether an error of wasmtime is an exception that the guest has thrown and not caught. For
// wasmtime that is not a trap, and it has no backtrace.
func Uncaught(message string) bool { return strings.Contains(message, "thrown Wasm exception") }

// LeftOut returns an error that names the feature if wasmtime's reason not to compile a guest is a feature of
// WebAssembly that Configure leaves out, else nil.
func LeftOut(reason string) error {
	for _, f := range leftOut {
		if f.refusal.MatchString(reason) {
			return fmt.Errorf("uses %s, which Wasm containers leave out: %s (%s)", f.name, f.remedy, reason)
		}
	}
	return nil
}
