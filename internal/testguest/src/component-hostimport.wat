;; A command that needs an interface that no host implements here:
;; example:host/api.
(component
  (import "example:host/api" (instance $api (export "ask" (func (result u32)))))
  (core func $ask (canon lower (func $api "ask")))
  (core module $code
    (import "host" "ask" (func $ask (result i32)))
    (func (export "run") (result i32) (i32.ne (call $ask) (i32.const 0))))
  (core instance $code (instantiate $code (with "host" (instance (export "ask" (func $ask))))))
  (func $run (result (result)) (canon lift (core func $code "run")))
  (instance $exports (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exports)))
