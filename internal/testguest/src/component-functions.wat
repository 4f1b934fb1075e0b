;; A component that is not a command: it exports plain functions. "greet" prints a line, "fail" traps,
;; "refuse" and "accept" return the two cases of a result, "number" returns a number, and "add" takes
;; arguments.
(component
  (import "wasi:io/error@0.2.0" (instance $io-error
    (export "error" (type (sub resource)))))
  (alias export $io-error "error" (type $error))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $output-stream (sub resource)))
    (alias outer 1 $error (type $outer-error))
    (export "error" (type $error (eq $outer-error)))
    (type $stream-error' (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $stream-error')))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $output-stream)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $output-stream (type $outer-output-stream))
    (export "output-stream" (type $output-stream (eq $outer-output-stream)))
    (export "get-stdout" (func (result (own $output-stream))))))

  (core module $memory
    (memory (export "memory") 1)
    (data (i32.const 64) "hello from a function\n"))
  (core instance $memory (instantiate $memory))
  (alias core export $memory "memory" (core memory $mem))

  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $mem)))
  (core func $drop (canon resource.drop $output-stream))

  (core module $code
    (import "host" "get-stdout" (func $get-stdout (result i32)))
    (import "host" "write" (func $write (param i32 i32 i32 i32)))
    (import "host" "drop" (func $drop (param i32)))
    (func (export "greet") (local $stream i32)
      (local.set $stream (call $get-stdout))
      (call $write (local.get $stream) (i32.const 64) (i32.const 22) (i32.const 0))
      (call $drop (local.get $stream)))
    (func (export "fail") unreachable)
    (func (export "refuse") (result i32) (i32.const 1))
    (func (export "accept") (result i32) (i32.const 0))
    (func (export "number") (result i32) (i32.const 7))
    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
  (core instance $code (instantiate $code
    (with "host" (instance
      (export "get-stdout" (func $get-stdout))
      (export "write" (func $write))
      (export "drop" (func $drop))))))

  (func $greet (canon lift (core func $code "greet")))
  (export "greet" (func $greet))
  (func (export "fail") (canon lift (core func $code "fail")))
  (func (export "refuse") (result (result)) (canon lift (core func $code "refuse")))
  (func (export "accept") (result (result)) (canon lift (core func $code "accept")))
  (func (export "number") (result u32) (canon lift (core func $code "number")))
  (func (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $code "add")))
  (instance $api (export "hello" (func $greet)))
  (export "example:greet/api@1.0.0" (instance $api)))
