package executor

import "testing"

func TestRelease(t *testing.T) {
	for image, want := range map[string]string{
		"quay.io/argoproj/argoexec:v4.0.2":                         "v4.0.2",
		"registry.local:5000/mirror/argoproj/argoexec:v3.7.12":     "v3.7.12",
		"argoexec:v3.6.14":                                         "v3.6.14",
		"quay.io/argoproj/argoexec:v4.0.2@sha256:0123456789abcdef": "v4.0.2",
		"quay.io/argoproj/argoexec":                                "",
		"quay.io/argoproj/argoexec@sha256:0123456789abcdef":        "",
		"quay.io/argoproj/argoexec:latest":                         "",
		"quay.io/argoproj/argoexec:v4.0.2-rc1":                     "",
		"quay.io/argoproj/argoexec:v4.1.0":                         "",
		"quay.io/argoproj/argoexec:v3.4.9":                         "",
		"quay.io/argoproj/argoexec-nonroot:v4.0.2":                 "",
		"registry.local:5000/argoexec":                             "",
		"quay.io/argoproj/workflow-controller:v4.0.2":              "",
		"": "",
		"sha256:0123456789abcdef0123456789abcdef0123456789abcdef012345": "",
		"quay.io/argoproj/argoexec:v4.0.99999":                          "",
	} {
		got, err := Release(image)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v; want %q", image, got, err, want)
		}
	}
}
