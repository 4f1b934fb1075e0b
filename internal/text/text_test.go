package text

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestShort(t *testing.T) {
	if got := Short("as it is", 8); got != "as it is" {
		t.Errorf("got %q", got)
	}
	long := "begin " + strings.Repeat("ü", 5000) + " end"
	got := Short(long, 101) // in the middle of a character
	if !strings.HasPrefix(got, "begin ") || !strings.HasSuffix(got, " end") || len(got) > 150 || !utf8.ValidString(got) {
		t.Errorf("got %q", got)
	}
}

func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"plain, ünïcödé, 漢字 😀":              "plain, ünïcödé, 漢字 😀",
		"x\x1b]0;owned\a\x1b[2J.wasm":       "x?]0;owned??[2J.wasm",
		"two\nlines\r\ttab":                 "two?lines??tab",
		"c1 \u009b2J \u0085":                "c1 ?2J ?",
		"not\xffutf8":                       "not?utf8",
		"right \u202eto left \u2066 \u200b": "right ?to left ? ?",
	} {
		if got := Printable(s); got != want {
			t.Errorf("%q became %q, want %q", s, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\x1b[2Jü\xff", 3)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit &= 1<<10 - 1
		short := Short(s, limit)
		if len(short) > 3*limit+64 || !utf8.ValidString(short) {
			t.Errorf("%q short is %q", s, short)
		}
		for _, r := range Printable(s) {
			if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
				t.Errorf("%q prints %q", s, r)
			}
		}
	})
}
