package executor_test

import (
	"strings"
	"testing"
	"time"
)

// TestUnknownGoesToArgoexec lets the image's argoexec run what only it knows.
func TestUnknownGoesToArgoexec(t *testing.T) {
	argoexec, err := tools()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := program()
	if err != nil {
		t.Fatal(err)
	}
	resource := `{"name":"a","resource":{"action":"get","manifest":"x"}}`
	for _, c := range []struct {
		name, verb, template string
		env                  []string
		home                 bool
		reason               string
	}{
		{"a kind of template", "init", resource, nil, false, "its template is of kind resource"},
		{"a kind of template in wait", "wait", resource, nil, false, "its template is of kind resource"},
		{"a new field", "wait", `{"name":"a","container":{},"fresh":true}`, nil, false, "its template is not understood"},
		{"a variable", "wait", containerTemplate, []string{"DISABLE_HTTP2=1"}, false, "variable DISABLE_HTTP2 is set"},
		{"a configuration file", "wait", containerTemplate, nil, true, "/root/.kube/config exists"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, argoexec["4.0"], nil)
			w.link(ours, "stand-in/wasm-argoexec")
			if c.home {
				w.write("root/.kube/config", "{}")
			}
			env := c.env
			if c.verb == "init" {
				env = append(env, "ARGO_TEMPLATE="+c.template)
			} else {
				w.argo("template", c.template)
			}
			began := time.Now()
			w.start("/stand-in/wasm-argoexec", []string{c.verb}, env)
			if c.verb == "wait" {
				w.awaitRequests(1)
				w.exit("main", "0")
			}
			o := w.finish(began)
			if o.exit != 0 || !strings.Contains(o.log, c.reason) || !strings.Contains(o.log, "Executor initialized") {
				t.Errorf("exit code %d, log:\n%s", o.exit, o.log)
			}
		})
	}
}

// TestNoArgoexec ends with an error when there is no argoexec to execute.
func TestNoArgoexec(t *testing.T) {
	ours, err := program()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, ours, nil)
	w.link(ours, "stand-in/wasm-argoexec")
	w.removeAll("bin/argoexec")
	w.start("/stand-in/wasm-argoexec", []string{"wait"}, []string{"POD_NAMESPACE=x"})
	o := w.finish(time.Now())
	if o.exit != 64 || !strings.HasPrefix(o.message, "find the image's argoexec: ") {
		t.Errorf("exit code %d, message %q", o.exit, o.message)
	}
}
