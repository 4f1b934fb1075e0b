package e2e

import (
	"flag"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

var threeWays = flag.Bool("three-ways", false, "run the workflows of the tests with Argo's own executor, too, and compare all that they leave")

// comparison has what the workflows of a test leave, by the workflow's place in the test and by [way.name].
type comparison struct {
	seen *recorder
	mu   sync.Mutex
	left map[string]map[string]trace
}

// compareWays runs the test with the stand-ins and then with Argo's own executor. Each workflow must leave the same in
// all ways in which the test runs it, except for the known differences. [sameAsNative] runs it in containers as well.
func compareWays(t *testing.T, version string, test func(t *testing.T, a *argo)) {
	t.Helper()
	c := &comparison{seen: record(t, argoVersion(version)), left: map[string]map[string]trace{}}
	for _, name := range wayTests {
		t.Run(name, func(t *testing.T) {
			a := argoVersion(version)
			a.executor, a.compared = name == "argoexec", c
			test(t, a)
		})
	}
	c.check(t)
}

// wayTests are the names of the tests of both executors.
var wayTests = []string{"stand-ins", "argoexec"}

// add keeps what a workflow that has ended has left, and returns the workflow after its last pod has ended.
func (c *comparison) add(t testing.TB, w workflow) workflow {
	t.Helper()
	w = c.seen.settled(t, w)
	by := ways[2]
	switch {
	case w.argo.executor:
		by = ways[1]
	case w.native():
		by = ways[0]
	}
	left := c.seen.trace(t, w, upstreamExample{}, by)
	place := strings.Split(t.Name(), "/")
	place = slices.DeleteFunc(place, func(part string) bool { return slices.Contains(wayTests, part) })
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s workflow %d", strings.Join(place, "/"), i)
		if c.left[name] == nil {
			c.left[name] = map[string]trace{}
		}
		if _, found := c.left[name][by.name]; !found {
			c.left[name][by.name] = left
			return w
		}
	}
}

// native reports whether the workflow's pods are not of the Wasm class.
func (w workflow) native() bool {
	return w.text("spec", "podSpecPatch") == "" && w.text("spec", "workflowTemplateRef", "name") == ""
}

// check compares what the ways have left.
func (c *comparison) check(t *testing.T) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(c.left)) {
		var traces []trace
		var by []string
		for _, w := range ways {
			if left, found := c.left[name][w.name]; found {
				traces, by = append(traces, left), append(by, w.name)
			}
		}
		if len(traces) < 2 && !t.Failed() {
			t.Errorf("%s was run only one way: %s", name, by)
		}
		values := 0
		for _, left := range traces {
			values = max(values, len(left))
		}
		t.Logf("%s: compared %d values of %d ways", name, values, len(traces))
		for _, key := range differing(traces) {
			text := name + ": " + key
			for i, left := range traces {
				text += fmt.Sprintf("\n    %-16s %s", by[i]+":", left.show(key))
			}
			if why := suiteDifference(t.Name()).why(key, traces); why != "" {
				t.Logf("known: %s\n%s", why, text)
				continue
			}
			t.Error("differs: " + text)
		}
	}
}

// suiteDifference returns the known differences of a test.
func suiteDifference(test string) upstreamExample {
	test, _, _ = strings.Cut(test, "/")
	return upstreamExample{known: suiteDifferences[test]}
}

var suiteDifferences = map[string][]knownDifference{
	"TestWorkflowStop":             atDeadline,
	"TestWorkflowTerminate":        atDeadline,
	"TestWorkflowDeadline":         append(atDeadline[:1:1], knownDifference{regexp.MustCompile(`^\(workflow\) message$`), nil, "It is the node's."}),
	"TestWorkflowTemplateDeadline": atDeadline,
	"TestWorkflowDaemon": {{
		regexp.MustCompile(`daemon\} (container wait|labels .*report-outputs-completed)$`), nil,
		"A daemon's pod ends after its workflow, whose results the controller then deletes. Who is first decides whether `wait` still finds its own.",
	}},
	"TestWorkflowMemoised": {{
		regexp.MustCompile(` memoizationStatus cacheName$`), nil, "Each run has a cache of its own.",
	}},
	"TestWorkflowLinks": {{
		regexp.MustCompile(`^object `), regexp.MustCompile(`mode 7[57][57]`),
		"A Wasm guest's new folders have the mode 0777, because WASI has no modes and a worker has no umask.",
	}},
	"TestWorkflowLargeArtifact": {{
		regexp.MustCompile(`^object `), regexp.MustCompile(`[0-9a-f]{64}`), "The data is random.",
	}},
}
