// Package text makes text from an image, a guest or a registry fit for people and logs: short,
// and without control sequences for a terminal.
package text

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Short returns s or, if s has more than limit bytes, its beginning and its end with a note of
// how much is left out between them, about limit bytes in all. The result is valid UTF-8.
func Short(s string, limit int) string {
	if len(s) <= limit {
		return strings.ToValidUTF8(s, string(utf8.RuneError))
	}
	head, tail := s[:limit*3/4], s[len(s)-limit/4:]
	left := len(s) - len(head) - len(tail)
	return strings.ToValidUTF8(fmt.Sprintf("%s … (%d bytes) … %s", head, left, tail), string(utf8.RuneError))
}

// Printable returns s in one line. A question mark replaces every character that does not print
// as itself: controls, marks that change the direction of writing, bytes that are not UTF-8.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
