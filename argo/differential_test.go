package argo_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/wasmshim/containerd-shim-wasm/internal/testnode"
)

// scene is one way of running a container, to compare with a real argoexec's.
type scene struct {
	name     string
	template string // none, if empty
	container
	prepare func(world)
	during  func(world, signaller)
	// without names the versions that cannot do this yet.
	without []string
	// ignore is a file of the volume that is left to chance.
	ignore string
	// check looks at our outcome by itself, so that the comparison does not
	// compare nothing.
	check func(*testing.T, outcome)
}

// versions of argoexec to compare with, as hack/tools names them.
var versions = []string{"3.6", "3.7", "4.0"}

// tools are the paths of argoexec by version.
var tools = sync.OnceValues(func() (map[string]string, error) {
	names := make([]string, len(versions))
	for i, version := range versions {
		names[i] = "argo-" + version
	}
	folders, err := testnode.Tools(context.Background(), names...)
	if err != nil {
		return nil, err
	}
	tools := map[string]string{}
	for i, version := range versions {
		tools[version] = folders[i] + "/argoexec"
	}
	return tools, nil
})

// TestAsArgoexec runs each scene under argoexec, of every version, and under the
// Emissary, and compares what they leave.
func TestAsArgoexec(t *testing.T) {
	argoexec, err := tools()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range slices.Concat(runScenes, outputScenes, archiveScenes) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.compare(t, argoexec)
		})
	}
}

func (s scene) compare(t *testing.T, argoexec map[string]string) {
	worlds := map[string]world{"ours": s.world(t)}
	for _, version := range versions {
		if !slices.Contains(s.without, version) {
			worlds[version] = s.world(t)
		}
	}
	outcomes := map[string]outcome{}
	var lock sync.Mutex
	var all sync.WaitGroup
	for version, w := range worlds {
		all.Go(func() {
			var o outcome
			if version == "ours" {
				o = w.runOurs(s.container, s.during)
			} else {
				o = w.runReal(s.container, argoexec[version], s.during)
			}
			lock.Lock()
			defer lock.Unlock()
			outcomes[version] = o
		})
	}
	all.Wait()
	ours := outcomes["ours"]
	for _, version := range versions {
		if real, ok := outcomes[version]; ok {
			delete(real.files, s.ignore)
			differences(t, version, real, ours)
		}
	}
	if s.check != nil {
		s.check(t, ours)
	}
	if t.Failed() {
		for version, o := range outcomes {
			t.Logf("%s: exit code %d, message %q, log:\n%s", version, o.exit, o.message, o.log)
		}
	}
}

func (s scene) world(t *testing.T) world {
	w := newWorld(t)
	if s.template != "" {
		w.write("/var/run/argo/template", s.template)
	}
	if s.prepare != nil {
		s.prepare(w)
	}
	return w
}

func differences(t *testing.T, version string, want, have outcome) {
	t.Helper()
	if want.exit != have.exit {
		t.Errorf("exit code %d, argoexec %s has %d", have.exit, version, want.exit)
	}
	for _, stream := range [][3]string{{"stdout", want.stdout, have.stdout}, {"stderr", want.stderr, have.stderr}} {
		if stream[1] != stream[2] {
			t.Errorf("%s %s, argoexec %s has %s", stream[0], short([]byte(stream[2])), version, short([]byte(stream[1])))
		}
	}
	if (want.message == "") != (have.message == "") {
		t.Errorf("termination message %q, argoexec %s has %q", have.message, version, want.message)
	}
	names := slices.Sorted(maps.Keys(want.files))
	for name := range have.files {
		if _, ok := want.files[name]; !ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if want.files[name] != have.files[name] {
			t.Errorf("%s is %s\nargoexec %s has %s", name, have.files[name], version, want.files[name])
		}
	}
}

// wants returns a check of the exit code, the exit code file and of files.
func wants(exit int, recorded string, files ...string) func(*testing.T, outcome) {
	return func(t *testing.T, o outcome) {
		t.Helper()
		if o.exit != exit {
			t.Errorf("exit code %d, want %d", o.exit, exit)
		}
		found := ""
		for name, content := range o.files {
			if strings.HasSuffix(name, "/exitcode") && strings.HasSuffix(content, fmt.Sprintf("%q", recorded)) {
				found = name
			}
		}
		if found == "" {
			t.Errorf("no exit code file holds %q: %q", recorded, o.files)
		}
		for _, name := range files {
			name, absent := strings.CutPrefix(name, "!")
			if _, ok := o.files[name]; ok == absent {
				t.Errorf("%s: there %v, want %v", name, ok, !absent)
			}
		}
	}
}
