package component

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// A request is denied by us whatever version of the interface a component imports, that which wasmtime
// implements among them. The guest traps when it is told anything else.
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

// What wasmtime implements of wasi:http is not there for a component that does not import it.
func TestHTTPOnlyWhereImported(t *testing.T) {
	if compiled(t, command("", plain("i32.const 0"))).importsHTTP() {
		t.Error("a component without imports imports wasi:http")
	}
}
