package doctor

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// enginePath starts the path of the Go module that brings wasmtime; its version is wasmtime's.
const enginePath = "github.com/bytecodealliance/wasmtime-go/"

// openAdvisories are the advisories by which a guest could leave WebAssembly, or nearly so, by version and
// processor. docs/security.md lists all advisories, with what contains each.
var openAdvisories = map[placedEngine]string{
	{"v44.0.0", "arm64"}: "GHSA-mghf-wjfp-p5xm (a large br_table jumps to a wrong place)",
}

// placedEngine is the engine that a worker was built with.
type placedEngine struct{ version, arch string }

func (e placedEngine) String() string {
	return fmt.Sprintf("wasmtime %s for %s", strings.TrimPrefix(e.version, "v"), e.arch)
}

// checkEngine reads which engine the placed workers hold. After an upgrade there may be two, as long as pods
// run that were there before.
func checkEngine(_ context.Context, n *node) Result {
	engines, err := placedEngines(n.path(libDir))
	if err != nil {
		return unknown("the engine", err.Error())
	}
	if len(engines) == 0 {
		return ok("the first container places it in " + libDir)
	}
	return judge(engines)
}

func judge(engines []placedEngine) Result {
	var names, open []string
	for _, e := range engines {
		names = append(names, e.String())
		if advisory := openAdvisories[e]; advisory != "" {
			open = append(open, advisory)
		}
	}
	found := strings.Join(names, ", ")
	if len(open) > 0 {
		return warn(found+", with known vulnerabilities: "+strings.Join(open, ", "),
			"the shim refuses what it knows to be affected; run no images of strangers on this node until the shim has a newer engine, see docs/security.md")
	}
	return ok(found)
}

func placedEngines(dir string) ([]placedEngine, error) {
	placed, err := filepath.Glob(filepath.Join(dir, "wasm-worker-*"))
	if err != nil {
		return nil, err
	}
	var engines []placedEngine
	for _, path := range placed {
		engine, err := readEngine(path)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(engines, engine) {
			engines = append(engines, engine)
		}
	}
	return engines, nil
}

// readEngine reads what Go notes in every program. Nothing of the program runs.
func readEngine(path string) (placedEngine, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return placedEngine{}, fmt.Errorf("read what %s was built of: %w", path, err)
	}
	var engine placedEngine
	for _, s := range info.Settings {
		if s.Key == "GOARCH" {
			engine.arch = s.Value
		}
	}
	for _, m := range info.Deps {
		if strings.HasPrefix(m.Path, enginePath) {
			engine.version = m.Version
		}
	}
	if engine.version == "" {
		return placedEngine{}, fmt.Errorf("%s holds no wasmtime", path)
	}
	return engine, nil
}
