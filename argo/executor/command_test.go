package executor

import (
	"strings"
	"testing"
)

const plain = `{"name":"t","inputs":{},"outputs":{},"metadata":{},"container":{"name":"","image":"x","command":["/app.wasm"],"resources":{}}}`

func TestKnown(t *testing.T) {
	initial := []string{"argoexec", "init", "--loglevel", "info", "--log-format", "text", "--gloglevel", "0"}
	for name, c := range map[string]struct {
		args []string
		env  []string
		want string // part of the error, "" if it is known
	}{
		"init":                  {initial, []string{"ARGO_TEMPLATE=" + plain}, ""},
		"wait":                  {[]string{"/bin/argoexec", "wait", "--loglevel=debug"}, nil, ""},
		"emissary":              {[]string{"argoexec", "emissary", "--", "x"}, nil, "neither"},
		"no command":            {[]string{"argoexec"}, nil, "neither"},
		"other program":         {[]string{"sh", "wait"}, nil, "neither"},
		"kubeconfig":            {append(initial, "--kubeconfig=/x"), nil, `"--kubeconfig"`},
		"level":                 {[]string{"argoexec", "wait", "--loglevel", "loud"}, nil, `"--loglevel"`},
		"flag without value":    {[]string{"argoexec", "wait", "--loglevel"}, nil, `"--loglevel"`},
		"operand":               {[]string{"argoexec", "wait", "x", "y"}, nil, `"x"`},
		"no template":           {initial, nil, "ARGO_TEMPLATE is not set"},
		"offloaded template":    {initial, []string{"ARGO_TEMPLATE=offloaded"}, "read the template"},
		"the last one counts":   {initial, []string{"ARGO_TEMPLATE=offloaded", "ARGO_TEMPLATE=" + plain}, ""},
		"proxy":                 {[]string{"argoexec", "wait"}, []string{"HTTPS_PROXY=http://proxy"}, "HTTPS_PROXY"},
		"empty proxy":           {[]string{"argoexec", "wait"}, []string{"HTTPS_PROXY="}, ""},
		"retries":               {[]string{"argoexec", "wait"}, []string{"EXECUTOR_RETRY_BACKOFF_STEPS=9"}, "EXECUTOR_RETRY_BACKOFF_STEPS"},
		"plugins":               {[]string{"argoexec", "wait"}, []string{"ARGO_ARTIFACT_PLUGIN_NAMES=a"}, "ARGO_ARTIFACT_PLUGIN_NAMES"},
		"Argo's of tomorrow":    {[]string{"argoexec", "wait"}, []string{"ARGO_QUANTUM=1"}, "ARGO_QUANTUM"},
		"argo-server's":         {[]string{"argoexec", "wait"}, []string{"ARGO_SERVER_SERVICE_HOST=10.0.0.2", "ARGO_SERVER_PORT_2746_TCP_ADDR=10.0.0.2"}, ""},
		"variables of services": {[]string{"argoexec", "wait"}, []string{"KUBERNETES_SERVICE_HOST=10.0.0.1", "KUBERNETES_PORT=x"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := Known(c.args, c.env)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseTemplate(t *testing.T) {
	for name, c := range map[string]struct{ template, want string }{
		"container":          {plain, ""},
		"script":             {`{"script":{"image":"x","source":"s"}}`, ""},
		"set":                {`{"containerSet":{"containers":[{"name":"a"}]}}`, ""},
		"archive location":   {`{"container":{},"archiveLocation":{"s3":{"bucket":"b"}}}`, ""},
		"no archived logs":   {`{"container":{},"archiveLocation":{"archiveLogs":false}}`, ""},
		"archived logs":      {`{"container":{},"archiveLocation":{"archiveLogs":true,"s3":{"accessKeySecret":{"name":"s","key":"a"},"secretKeySecret":{"name":"s","key":"b"}}}}`, ""},
		"no place for logs":  {`{"container":{},"archiveLocation":{"archiveLogs":true}}`, "store is not set"},
		"input artifacts":    {`{"container":{},"inputs":{"artifacts":[{"name":"a","path":"/a"}]}}`, ""},
		"output artifacts":   {`{"container":{},"outputs":{"artifacts":[{"name":"a","path":"/a","http":{"url":"http://h/p"}}]}}`, ""},
		"resource":           {`{"resource":{}}`, `"resource"`},
		"plugin":             {`{"plugin":{}}`, `"plugin"`},
		"http":               {`{"http":{}}`, `"http"`},
		"a new field":        {`{"container":{},"quantum":true}`, `"quantum"`},
		"no kind":            {`{"name":"t"}`, "no kind"},
		"null":               {`null`, "no kind"},
		"list":               {`[]`, "read the template"},
		"relative parameter": {`{"container":{},"outputs":{"parameters":[{"name":"p","valueFrom":{"path":"x"}}]}}`, "not absolute"},
		"number as default":  {`{"container":{},"outputs":{"parameters":[{"name":"p","valueFrom":{"path":"/x","default":1}}]}}`, "output parameters"},
		"path as a name":     {`{"containerSet":{"containers":[{"name":"../a"}]}}`, "name"},
		"huge":               {`{"container":{},"name":"` + strings.Repeat("x", maxTemplate) + `"}`, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseTemplate([]byte(c.template))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// Whatever a pod's author writes: there is an answer, and a template that is known can be reported on.
func FuzzParseTemplate(f *testing.F) {
	f.Add(plain)
	f.Add(`{"containerSet":{"containers":[{"name":"a"},{"name":"../b"}]},"outputs":{"parameters":[{"name":"p","valueFrom":{"path":"/x"}}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseTemplate([]byte(text))
		if err != nil {
			return
		}
		parsed.MainContainers()
		parsed.OnVolume("/x")
		all, err := parsed.Outputs.Parameters()
		if err != nil {
			t.Fatal(err)
		}
		for i := range all {
			if err := parsed.Outputs.Set(i, "v"); err != nil {
				t.Errorf("%s: %v", text, err)
			}
		}
	})
}
