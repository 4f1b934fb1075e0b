package step

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/wasmshim/containerd-shim-wasm/argo/executor"
)

// maxResult bounds the result of a script, in bytes: of a longer one the end counts (CaptureScriptResult).
const maxResult = 256 << 10

// captureResult makes the main container's standard output the step's result, if a later step refers to it.
func (s *step) captureResult() error {
	if s.env("ARGO_INCLUDE_SCRIPT_OUTPUT") != "true" {
		return nil
	}
	if s.template.ContainerSet != nil && !slices.Contains(s.template.MainContainers(), "main") {
		return nil
	}
	f, err := s.volume.open("ctr/main/stdout", unix.O_RDONLY)
	if err != nil {
		return err
	}
	text, err := readRegular(f, maxResult)
	if err != nil {
		return err
	}
	result := strings.TrimSuffix(string(text), "\n")
	if len(result) > maxResult {
		s.Log.Warn("the output is larger than 256 KiB: only the last 256 KiB are the result")
		result = result[len(result)-maxResult:]
	}
	encoded, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	s.template.Outputs["result"] = encoded
	return nil
}

// saveParameters reads the output parameters from their files, up to the first that fails.
func (s *step) saveParameters() error {
	all, err := s.template.Outputs.Parameters()
	if err != nil {
		return err
	}
	total := 0
	for _, i := range slices.Sorted(maps.Keys(all)) {
		value, err := s.parameter(all[i])
		if err != nil {
			return err
		}
		if total += len(value); total > maxFile { // one report has them all
			return fmt.Errorf("the output parameters have more than %d bytes together", maxFile)
		}
		if err := s.template.Outputs.Set(i, strings.TrimSuffix(value, "\n")); err != nil {
			return err
		}
	}
	return nil
}

// parameter returns what a parameter's file holds, or its default. A file on a volume is read there; of any other the
// main container has left a copy.
func (s *step) parameter(p executor.Parameter) (string, error) {
	value, err := s.readParameter(p.Path)
	if err != nil && p.Default != nil {
		return *p.Default, nil
	}
	return value, err
}

// mainFiles is where the wait container has the volumes of the main container.
const mainFiles = "/mainctrfs"

func (s *step) readParameter(file string) (string, error) {
	if !s.template.Shared(file) {
		f, err := s.volume.open("outputs/parameters"+path.Clean(file), unix.O_RDONLY)
		if err != nil {
			return "", err
		}
		return readAll(f)
	}
	f, err := openBeneath(s.Root+mainFiles, path.Clean(file), unix.O_RDONLY, inMain)
	if err != nil {
		return "", err
	}
	return readAll(f)
}
