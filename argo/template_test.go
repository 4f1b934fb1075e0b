package argo

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAttempts(t *testing.T) {
	for set, want := range map[string]struct {
		times int
		pause time.Duration
		err   string
	}{
		`{}`:                                  {times: 1},
		`{"retryStrategy":null}`:              {times: 1},
		`{"retryStrategy":{"duration":"1s"}}`: {times: 1},
		`{"retryStrategy":{"retries":3}}`:     {times: 3},
		`{"retryStrategy":{"retries":"3","duration":"1m30s"}}`: {times: 3, pause: 90 * time.Second},
		`{"retryStrategy":{"retries":0}}`:                      {times: 1},
		`{"retryStrategy":{"retries":-4}}`:                     {times: 1},
		`{"retryStrategy":{"retries":2,"duration":"x"}}`:       {err: "duration"},
		`{"retryStrategy":{"retries":2,"duration":"-1s"}}`:     {err: "negative"},
		`{"retryStrategy":{"retries":"many"}}`:                 {err: "whole number"},
		`{"retryStrategy":{"retries":1.5}}`:                    {err: "whole number"},
		`{"retryStrategy":{"retries":99999999999}}`:            {err: "whole number"},
	} {
		template, err := parseTemplate([]byte(`{"containerSet":` + set + `}`))
		var times int
		var pause time.Duration
		if err == nil {
			times, pause, err = template.attempts()
		}
		switch {
		case want.err != "":
			if err == nil || !strings.Contains(err.Error(), want.err) {
				t.Errorf("%s: error %v, want %q", set, err, want.err)
			}
		case err != nil || times != want.times || pause != want.pause:
			t.Errorf("%s: %d, %v, %v, want %d, %v", set, times, pause, err, want.times, want.pause)
		}
	}
}

func TestVolumes(t *testing.T) {
	template, err := parseTemplate([]byte(`{"container":{"volumeMounts":[{"mountPath":"/a/b/"},{"mountPath":"/c"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/": "above", "/a": "above", "/a/b": "on in above", "/a/b/": "on in above", "/a/b/c": "on in", "/a/bc": "",
		"/c": "on in above", "/cc": "", "/c/d": "on in", "/x": "", "c": "", "c/d": "",
		"/c/../x": "", "/a//b/c": "in", "/x/../c/d": "in", "/c/./d": "on in",
	} {
		var have []string
		for name, holds := range map[string]bool{"on": template.onVolume(path), "in": template.inVolume(path), "above": template.aboveVolume(path)} {
			if holds {
				have = append(have, name)
			}
		}
		slices.SortFunc(have, func(a, b string) int { return strings.Index("on in above", a) - strings.Index("on in above", b) })
		if have := strings.Join(have, " "); have != want {
			t.Errorf("%s is %q, want %q", path, have, want)
		}
	}
}

// FuzzTemplate holds that whatever a template is, it can be asked.
func FuzzTemplate(f *testing.F) {
	for _, text := range []string{
		`{}`, `null`, `[]`, `{"container":{"volumeMounts":[{"mountPath":"/a"}]}}`, `{"containerSet":{"retryStrategy":{"retries":"3","duration":"1s"},"containers":[{"name":"a","dependencies":["b"]}]}}`,
		`{"outputs":{"parameters":[{"valueFrom":{"path":"/x"}}],"artifacts":[{"path":"/y"}]},"sidecars":[{"name":"s"}],"archiveLocation":{"archiveLogs":true}}`,
		`{"containerSet":{"retryStrategy":{"retries":1e3}}}`, strings.Repeat(`{"container":`, 20000),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		template, err := parseTemplate(data)
		if err != nil {
			return
		}
		if times, pause, err := template.attempts(); err == nil && (times < 1 || pause < 0) {
			t.Errorf("%d attempts, %v apart", times, pause)
		}
		_ = template.onVolume("/x")
		_ = template.inVolume("/x")
		_ = template.aboveVolume("/x")
		_ = template.dependencies("a")
		_ = template.mainContainers()
		_ = template.isSidecar("s")
		_ = template.archivesLogs()
	})
}
