;; A module without _start whose function without a name exits with code 5, as wasmtime's command calls it.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "") (call $exit (i32.const 5))))
