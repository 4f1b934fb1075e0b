;; A module without _start. Its function with an empty name exits with code 5. wasmtime's command calls
;; that function.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "") (call $exit (i32.const 5))))
