package remote

import (
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
)

func TestParseEndpoint(t *testing.T) {
	message, err := proto.Marshal(&bootapi.BootstrapResult{Version: 3, Address: "unix:///run/s", Protocol: "ttrpc"})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		output string
		want   Endpoint
	}{
		"JSON":             {`{"version":3,"address":"unix:///run/s","protocol":"ttrpc"}`, Endpoint{3, "unix:///run/s", "ttrpc"}},
		"JSON and newline": {`{"version":2,"address":"unix:///run/s","protocol":"ttrpc"}` + "\n", Endpoint{2, "unix:///run/s", "ttrpc"}},
		"message":          {string(message), Endpoint{3, "unix:///run/s", "ttrpc"}},
		"address alone":    {"unix:///run/s\n", Endpoint{2, "unix:///run/s", "ttrpc"}},
		"abstract, of old": {"unix://\x00/run/s", Endpoint{2, "unix://\x00/run/s", "ttrpc"}},
		"JSON, no address": {`{"version":3}`, Endpoint{2, `{"version":3}`, "ttrpc"}},
		"nothing":          {"", Endpoint{2, "", "ttrpc"}},
		"path alone":       {"/run/s", Endpoint{2, "/run/s", "ttrpc"}},
	} {
		if got := ParseEndpoint([]byte(test.output)); got != test.want {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

// Any output of a start verb that is not blank has an address.
func FuzzParseEndpoint(f *testing.F) {
	f.Add([]byte(`{"version":3,"address":"unix:///run/s","protocol":"ttrpc"}`))
	f.Add([]byte("unix:///run/s"))
	f.Add([]byte("\x08\x03\x12\x0dunix:///run/s\x1a\x05ttrpc"))
	f.Fuzz(func(t *testing.T, output []byte) {
		e := ParseEndpoint(output)
		if e.Address == "" && len(strings.TrimSpace(string(output))) > 0 {
			t.Errorf("%q has no address", output)
		}
	})
}
