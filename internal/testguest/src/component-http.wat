;; A command that sends a request: it imports wasi:http/outgoing-handler, with as much of what that
;; uses as its one function needs.
(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "outgoing-request" (type (sub resource)))
    (export "request-options" (type (sub resource)))
    (export "future-incoming-response" (type (sub resource)))
    (type $code' (variant (case "DNS-timeout") (case "internal-error" (option string))))
    (export "error-code" (type (eq $code')))))
  (alias export $types "outgoing-request" (type $request))
  (alias export $types "request-options" (type $options))
  (alias export $types "future-incoming-response" (type $response))
  (alias export $types "error-code" (type $code))
  (import "wasi:http/outgoing-handler@0.2.0" (instance
    (alias outer 1 $request (type $request'))
    (export "outgoing-request" (type $request (eq $request')))
    (alias outer 1 $options (type $options'))
    (export "request-options" (type $options (eq $options')))
    (alias outer 1 $response (type $response'))
    (export "future-incoming-response" (type $response (eq $response')))
    (alias outer 1 $code (type $code'))
    (export "error-code" (type $code (eq $code')))
    (export "handle" (func (param "request" (own $request)) (param "options" (option (own $options)))
      (result (result (own $response) (error $code)))))))
  (core module $code (func (export "run") (result i32) (i32.const 0)))
  (core instance $code (instantiate $code))
  (func $run (result (result)) (canon lift (core func $code "run")))
  (instance $exports (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exports)))
