package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// makeLink is a createContainer hook. It makes a link to its first argument, named by its second, in the root
// file system that config.json names.
const makeLink = `#!/bin/sh -e
bundle=$(sed 's/.*"bundle":"\([^"]*\)".*/\1/')
root=$(tr -d '\n' <"$bundle/config.json" | sed 's/.*"root":{"path":"\([^"]*\)".*/\1/')
ln -s "$1" "$bundle/$root/$2"
`

// A device of a CDI file (https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md), requested
// as the kubelet does for a device plugin: its node, its mount, its variable and its hooks take effect in a
// Wasm container as in a native one. One hook makes a link in the root file system, as the hooks of NVIDIA's
// toolkit do. containerd 1.7 has CDI off by default.
func TestCDIDevice(t *testing.T) {
	for _, version := range testnode.Versions()[1:] {
		t.Run("containerd-"+version, func(t *testing.T) {
			specs, volume, l := t.TempDir(), t.TempDir(), newHookLog(t)
			put(t, "of the device", volume, "firmware")
			hook, links := l.hook("createRuntime"), filepath.Join(t.TempDir(), "links")
			if err := os.WriteFile(links, []byte(makeLink), 0o755); err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(map[string]any{
				"cdiVersion": "0.6.0", "kind": "example.com/device",
				"devices": []any{map[string]any{"name": "one", "containerEdits": map[string]any{
					"env":         []string{"DEVICE=one"},
					"mounts":      []any{map[string]any{"hostPath": volume, "containerPath": "/opt/device", "options": []string{"ro", "bind"}}},
					"deviceNodes": []any{map[string]any{"path": "/dev/one", "hostPath": "/dev/null", "type": "c", "major": 1, "minor": 3}},
					"hooks": []any{
						map[string]any{"hookName": "createRuntime", "path": hook.Path, "args": hook.Args, "env": hook.Env},
						map[string]any{"hookName": "createContainer", "path": links, "args": []string{"links", "opt/device/firmware", "firmware"}},
					},
				}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			put(t, string(text), specs, "device.json")
			node := testnode.New(t, testnode.Options{Version: version, CRI: true,
				Config: fmt.Sprintf("[plugins.\"io.containerd.cri.v1.runtime\"]\n  cdi_spec_dirs = [%q]\n", specs)})
			importPodImages(t, node)
			node.NoLeaks(t)
			for _, c := range []struct {
				way  way
				pod  string
				args []string
			}{
				{asWasm, ourHandler, []string{"/app.wasm", "env", ",", "ls", "/dev", ",", "stat", "/dev/one", ",", "read", "/firmware", ",", "say", "/done"}},
				{asNative, stockHandler, []string{"sh", "-c", "env; ls /dev; stat -c %F /dev/one; cat /firmware; echo /done"}},
			} {
				m := runPod(t, node, c.pod, nil).add(c.way, "hello", func(config *criapi.ContainerConfig) {
					config.Command = c.args
					config.CDIDevices = []*criapi.CDIDevice{{Name: "example.com/device=one"}}
				})
				m.start()
				m.await("/done")
				log, err := os.ReadFile(m.log)
				if err != nil {
					t.Fatal(err)
				}
				for _, want := range []string{"F DEVICE=one\n", "F one\n", "of the device/done"} {
					if !strings.Contains(string(log), want) {
						t.Errorf("%s: %q is not in\n%s", c.way.name, want, log)
					}
				}
				if kind := strings.Contains(string(log), "character-device") || strings.Contains(string(log), "character special file"); !kind {
					t.Errorf("%s: no device in\n%s", c.way.name, log)
				}
			}
			if got := fmt.Sprint(l.names(t)); got != "[createRuntime creating createRuntime creating]" {
				t.Errorf("the hooks run were %s", got)
			}
		})
	}
}
