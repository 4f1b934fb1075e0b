;; A module that uses exceptions as C++ and setjmp do. _start catches an exception that is thrown two calls
;; further down, prints a line and exits with the exception's value, 7. Its function uncaught does not catch
;; it.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "caught\n")
  (tag $code (param i32))
  (func $throws (throw $code (i32.const 7)))
  (func $between (call $throws))
  (func (export "uncaught") (call $between))
  (func (export "_start")
    (block $caught (result i32)
      (try_table (catch $code $caught) (call $between))
      (unreachable))
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 7))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (call $exit)))
