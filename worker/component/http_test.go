package component

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Our code denies requests in every version of the interface, including the one that wasmtime implements. The
// guest traps if it gets any other answer.
func TestHTTPIsDenied(t *testing.T) {
	text, err := os.ReadFile("../../internal/testguest/src/component-http.wat")
	if err != nil {
		t.Fatal(err)
	}
	for patch := range 13 {
		version := fmt.Sprintf("@0.2.%d", patch)
		of := strings.NewReplacer("types@0.2.10", "types"+version, "outgoing-handler@0.2.6", "outgoing-handler"+version, "outgoing-handler@0.2.10", "outgoing-handler@0.2.99")
		c := compiled(t, of.Replace(string(text)))
		if missing := c.Unprovided(); len(missing) > 0 {
			t.Errorf("%s: %q are missing", version, missing)
		}
		if err := linked(t, c, World{}).Run(Start); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}

// A component that does not import wasi:http does not get wasmtime's implementation of it.
func TestHTTPOnlyWhereImported(t *testing.T) {
	if compiled(t, command("", plain("i32.const 0"))).importsHTTP() {
		t.Error("a component without imports imports wasi:http")
	}
}
