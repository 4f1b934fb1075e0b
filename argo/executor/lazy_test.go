package executor

import (
	"slices"
	"strings"
	"testing"
)

// lazyPlain is a template with one artifact that is lazy. ARTIFACTS are further ones, REST further fields.
const lazyPlain = `{"name":"t","inputs":{"artifacts":[{"name":"a","path":"/in/a","archive":{"none":{}},"s3":{"key":"k"}}ARTIFACTS]},` +
	`"container":{"name":"","image":"x","resources":{},"volumeMounts":[{"name":"v","mountPath":"/v"}]},` +
	`"archiveLocation":{"s3":{"endpoint":"e:1","bucket":"b","accessKeySecret":{"name":"s","key":"a"},"secretKeySecret":{"name":"s","key":"b"},"key":"w"}}REST}`

func TestLazy(t *testing.T) {
	const s3 = `"archive":{"none":{}},"s3":{"key":"k"}`
	for name, c := range map[string]struct {
		artifacts, rest string
		want            []string
	}{
		"one":                      {"", "", []string{"a"}},
		"two":                      {`,{"name":"b","path":"/in/b/",` + s3 + `}`, "", []string{"a", "b"}},
		"names that begin alike":   {`,{"name":"b","path":"/in/ab",` + s3 + `}`, "", []string{"a", "b"}},
		"archive":                  {`,{"name":"b","path":"/in/b","s3":{"key":"k"}}`, "", []string{"a", "b"}},
		"raw":                      {`,{"name":"b","path":"/in/b","archive":{"none":{}},"raw":{"data":"x"}}`, "", []string{"a"}},
		"http":                     {`,{"name":"b","path":"/in/b","archive":{"none":{}},"http":{"url":"http://x/y"}}`, "", []string{"a"}},
		"not supplied":             {`,{"name":"b","path":"/in/b","archive":{"none":{}},"optional":true}`, "", []string{"a"}},
		"on a volume":              {`,{"name":"b","path":"/v/b",` + s3 + `}`, "", []string{"a"}},
		"one in another":           {`,{"name":"b","path":"/in/a/b",` + s3 + `}`, "", nil},
		"at the same place":        {`,{"name":"b","path":"/in//a",` + s3 + `}`, "", nil},
		"at the root":              {`,{"name":"b","path":"/",` + s3 + `}`, "", nil},
		"of the kernel":            {`,{"name":"b","path":"/proc/b",` + s3 + `}`, "", []string{"a"}},
		"of Argo":                  {`,{"name":"b","path":"/var/run/argo/b",` + s3 + `}`, "", []string{"a"}},
		"above Argo's":             {`,{"name":"b","path":"/var",` + s3 + `}`, "", []string{"a"}},
		"an output of it":          {"", `,"outputs":{"artifacts":[{"name":"o","path":"/in/a/x"}]}`, nil},
		"an output above it":       {"", `,"outputs":{"artifacts":[{"name":"o","path":"/in"}]}`, nil},
		"an output elsewhere":      {"", `,"outputs":{"artifacts":[{"name":"o","path":"/out"}]}`, []string{"a"}},
		"a parameter of it":        {"", `,"outputs":{"parameters":[{"name":"o","valueFrom":{"path":"/in/a"}}]}`, nil},
		"a sidecar":                {"", `,"sidecars":[{"name":"s"}]`, []string{"a"}},
		"a sidecar with all of it": {"", `,"sidecars":[{"name":"s","mirrorVolumeMounts":true}]`, nil},
		"a container before it":    {"", `,"initContainers":[{"name":"s","mirrorVolumeMounts":true}]`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			template, err := ParseTemplate([]byte(strings.NewReplacer("ARTIFACTS", c.artifacts, "REST", c.rest).Replace(lazyPlain)))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, a := range template.Lazy() {
				names = append(names, a.Name)
			}
			if !slices.Equal(names, c.want) {
				t.Errorf("lazy are %q, want %q", names, c.want)
			}
		})
	}
}
