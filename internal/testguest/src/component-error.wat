;; A command that returns the error of its result.
(component
  (core module $code (func (export "run") (result i32) (i32.const 1)))
  (core instance $code (instantiate $code))
  (func $run (result (result)) (canon lift (core func $code "run")))
  (instance $exports (export "run" (func $run)))
  (export "wasi:cli/run@0.2.3" (instance $exports)))
