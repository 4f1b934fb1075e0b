package main

import (
	"bytes"
	"maps"
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"-h"}, {"--help"}, {"find", "-h"}, {"find", "--help"}} {
		var out, errs bytes.Buffer
		if err := run(t.Context(), args, stdio{nil, &out, &errs}); err != nil {
			t.Errorf("%q: %v", args, err)
		}
		if !strings.HasPrefix(out.String(), "usage: ") || errs.Len() != 0 {
			t.Errorf("%q: stdout %q, stderr %q", args, &out, &errs)
		}
	}
}

func TestRefuses(t *testing.T) {
	for line, word := range map[string]string{
		"fnid":                         `unknown verb "fnid"`,
		"find":                         "--container or --image",
		"find --container a --image b": "--container or --image",
		"find --container a b":         `unexpected argument "b"`,
		"find --containers a":          "-containers",
	} {
		var out, errs bytes.Buffer
		err := run(t.Context(), strings.Fields(line), stdio{nil, &out, &errs})
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%q: %v, want %q", line, err, word)
		}
		if out.Len() != 0 || errs.Len() != 0 {
			t.Errorf("%q printed %q and %q beside its error", line, &out, &errs)
		}
	}
}

// Every verb prints its usage with -h.
func TestVerbs(t *testing.T) {
	all := maps.Clone(verbs)
	maps.Copy(all, private)
	for name := range all {
		var out, errs bytes.Buffer
		if err := run(t.Context(), append(strings.Fields(name), "-h"), stdio{nil, &out, &errs}); err != nil {
			t.Errorf("%s -h: %v", name, err)
		}
		if !strings.HasPrefix(out.String(), "usage: ") || errs.Len() != 0 {
			t.Errorf("%s -h: stdout %q, stderr %q", name, &out, &errs)
		}
	}
}
