package argo_test

import (
	"log/slog"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/argo"
)

func TestParse(t *testing.T) {
	app := argo.Command{File: "/app.wasm", Args: []string{"-v", "--", "--loglevel", "x"}}
	debug, json, bare := app, app, app
	debug.Level, json.JSON, bare.Args = slog.LevelDebug, true, []string{}
	for line, want := range map[string]argo.Command{
		"/var/run/argo/argoexec emissary --loglevel info --log-format text -- /app.wasm -v -- --loglevel x":                app,   // 3.5
		"/var/run/argo/argoexec emissary --loglevel info --log-format text --gloglevel 0 -- /app.wasm -v -- --loglevel x":  app,   // 3.6 to 4.0
		"/argo-bin/bin/argoexec emissary --loglevel debug --log-format text --gloglevel 6 -- /app.wasm -v -- --loglevel x": debug, // 4.1
		"/var/run/argo/argoexec emissary --loglevel=info --log-format=json --gloglevel=0 -- /app.wasm -v -- --loglevel x":  json,
		"argoexec --log-format json emissary -- /app.wasm -v -- --loglevel x":                                              json,
		"argoexec --loglevel=debug emissary /app.wasm -- -v -- --loglevel x":                                               debug,
		"argoexec emissary /app.wasm":                    bare,
		"argoexec emissary /app.wasm --loglevel info":    bare,
		"argoexec emissary --loglevel INFO /app.wasm":    bare,
		"argoexec emissary --loglevel info -- /app.wasm": bare,
	} {
		have, ok, err := argo.Parse(strings.Fields(line))
		if !ok || err != nil || !reflect.DeepEqual(have, want) {
			t.Errorf("Parse(%s) = %+v, %v, %v, want %+v", line, have, ok, err, want)
		}
	}
}

func TestParseOthers(t *testing.T) {
	for _, line := range []string{
		"", "/app.wasm", "/app.wasm emissary -- x", "argoexec", "argoexec wait --loglevel info", "argoexec init emissary", "argoexec kill 15 1",
		"argoexec -- emissary x", "/argoexec/x emissary -- y", "argoexec --loglevel emissary -- y", "argoexec artifact-plugin-sidecar -- /plugin /socket",
	} {
		if command, ok, err := argo.Parse(strings.Fields(line)); ok || err != nil {
			t.Errorf("Parse(%s) = %+v, %v, %v", line, command, ok, err)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for line, want := range map[string]string{
		"argoexec emissary":                        "no command",
		"argoexec emissary --":                     "no command",
		"argoexec emissary --loglevel":             "--loglevel needs a value",
		"argoexec emissary --loglevel loud -- x":   `unknown level "loud"`,
		"argoexec emissary --log-format xml -- x":  `not "xml"`,
		"argoexec emissary --gloglevel high -- x":  `"high" is no number`,
		"argoexec emissary --kubeconfig /x -- x":   `unknown flag "--kubeconfig"`,
		"argoexec emissary -n ns -- x":             `unknown flag "-n"`,
		"argoexec emissary /app.wasm --guest-flag": `put the command to run after "--"`,
	} {
		_, ok, err := argo.Parse(strings.Fields(line))
		if !ok || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%s) = %v, %v, want %q", line, ok, err, want)
		}
	}
}

func TestParseKill(t *testing.T) {
	for line, want := range map[string]argo.Kill{
		"/var/run/argo/argoexec kill 15 1":  {Signal: syscall.SIGTERM, PID: 1},
		"/argo-bin/bin/argoexec kill 9 1":   {Signal: syscall.SIGKILL, PID: 1},
		"argoexec kill --loglevel info 2 7": {Signal: syscall.SIGINT, PID: 7},
		"argoexec kill 0 1":                 {PID: 1},
	} {
		have, ok, err := argo.ParseKill(strings.Fields(line))
		if !ok || err != nil || have != want {
			t.Errorf("ParseKill(%s) = %+v, %v, %v, want %+v", line, have, ok, err, want)
		}
	}
	if have, want := (argo.Kill{Signal: syscall.SIGTERM, PID: 1}).String(), "killing 1 with terminated"; have != want {
		t.Errorf("String() = %q, want %q", have, want)
	}
	for _, line := range []string{"argoexec kill", "argoexec kill 15", "argoexec kill TERM 1", "argoexec kill 15 x", "argoexec kill -- -1 1", "argoexec kill 65 1", "argoexec kill 15 99999999999"} {
		if kill, ok, err := argo.ParseKill(strings.Fields(line)); !ok || err == nil {
			t.Errorf("ParseKill(%s) = %+v, %v, %v", line, kill, ok, err)
		}
	}
	for _, line := range []string{"kill 15 1", "argoexec emissary -- kill 15 1", ""} {
		if kill, ok, err := argo.ParseKill(strings.Fields(line)); ok || err != nil {
			t.Errorf("ParseKill(%s) = %+v, %v, %v", line, kill, ok, err)
		}
	}
}

// FuzzParse holds that what follows "--" comes out unchanged, and nothing panics.
func FuzzParse(f *testing.F) {
	for _, line := range []string{"argoexec emissary -- a b", "argoexec --loglevel info emissary a", "argoexec kill 15 1", "argoexec emissary --log-format=json -- x --", ""} {
		f.Add(strings.ReplaceAll(line, " ", "\x00"))
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		before := strings.Join(args, "\x00")
		command, ok, err := argo.Parse(args)
		if _, isKill, _ := argo.ParseKill(args); isKill && ok {
			t.Error("both emissary and kill")
		}
		if strings.Join(args, "\x00") != before {
			t.Error("the arguments were changed")
		}
		if err != nil && !ok {
			t.Error("an error for what is not argoexec's")
		}
		if !ok || err != nil {
			return
		}
		whole := "\x00" + line
		if tail := "\x00" + strings.Join(append([]string{command.File}, command.Args...), "\x00"); strings.Contains(whole, "\x00--"+tail) && !strings.HasSuffix(whole, tail) {
			t.Errorf("%q became %q", line, tail)
		}
		if command.File == "" {
			t.Error("no file")
		}
	})
}
