package install

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
)

// Our text in a file that belongs to somebody else stands between two marker lines:
//
//	# BEGIN containerd-shim-wasm CHECKSUM …
//	…
//	# END containerd-shim-wasm
//
// The checksum shows whether the text between was edited. A block is
// appended with a blank line before it, which goes with it. Where the file did not
// end in a line break, that blank line is the missing break instead, and the
// marker says so, so that removing the block leaves the file as it was.
const (
	beginMark = "# BEGIN containerd-shim-wasm "
	endMark   = "# END containerd-shim-wasm"
	joined    = " (joined)"
	beginHint = `; "` + BinaryName + ` uninstall" removes this block`
)

// block is where our text lies in a file.
type block struct {
	start, end int    // what to cut, the separating line break included
	body       string // between the markers, with "\n" line ends
	edited     bool   // since it was written
}

func checksum(body string) string {
	h := fnv.New64a()
	h.Write([]byte(body))
	return fmt.Sprintf("%016x", h.Sum64())
}

// lineEnd returns the line ending of a text, by its first line.
func lineEnd(text []byte) string {
	if i := bytes.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// appendBlock returns text with a block at its end; body has "\n" line ends.
func appendBlock(text []byte, body string) []byte {
	eol := lineEnd(text)
	begin := beginMark + checksum(body) + beginHint
	lead := ""
	if len(text) > 0 {
		lead = eol
		if text[len(text)-1] != '\n' {
			begin += joined
		}
	}
	ours := begin + "\n" + body + endMark + "\n"
	return append(bytes.Clone(text), lead+strings.ReplaceAll(ours, "\n", eol)...)
}

// findBlock finds our block; nil when there is none. Markers that make no pair are
// an error: somebody has moved them, and cutting would cut too much.
func findBlock(text []byte) (*block, error) {
	var b *block
	begin, bodyStart := -1, 0
	var head, eol string
	for at := 0; at < len(text); {
		next := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			next = at + i + 1
		}
		line := strings.TrimRight(string(text[at:next]), "\r\n")
		switch {
		case strings.HasPrefix(line, beginMark):
			if begin >= 0 || b != nil {
				return nil, fmt.Errorf("has a second line %q", strings.TrimSpace(beginMark))
			}
			begin, bodyStart, head, eol = at, next, line, string(text[at+len(line):next])
		case line == endMark:
			if begin < 0 || b != nil {
				return nil, fmt.Errorf("has a line %q without its beginning", endMark)
			}
			body := strings.ReplaceAll(string(text[bodyStart:at]), "\r\n", "\n")
			b = &block{start: begin, end: next, body: body}
		}
		at = next
	}
	if b == nil && begin >= 0 {
		return nil, fmt.Errorf("lacks the line %q", endMark)
	}
	if b == nil {
		return nil, nil
	}
	sum, _, _ := strings.Cut(strings.TrimPrefix(head, beginMark), ";")
	b.edited = sum != checksum(b.body)
	b.start -= separator(text[:b.start], eol, strings.HasSuffix(head, joined))
	return b, nil
}

// separator returns the number of bytes before the block that came with it.
func separator(before []byte, eol string, joined bool) int {
	rest, ok := bytes.CutSuffix(before, []byte(eol))
	if !ok || eol == "" {
		return 0
	}
	if joined || bytes.HasSuffix(rest, []byte("\n")) {
		return len(eol)
	}
	return 0
}

// cut returns text without the block.
func (b *block) cut(text []byte) []byte {
	return append(bytes.Clone(text[:b.start]), text[b.end:]...)
}

// withBlock appends a block and makes sure, by parsing, that the file then says
// what it said before and what the block adds, and nothing else.
func withBlock(text []byte, body string, added map[string]any) ([]byte, error) {
	before, err := parse(text)
	if err != nil {
		return nil, err
	}
	edited := appendBlock(text, body)
	after, err := parse(edited)
	if err != nil {
		return nil, fmt.Errorf("a table at its end would not be TOML, because a table above it is written inline "+
			"or as an array (%w)", err)
	}
	if d := difference(prune(merge(before, added)), prune(after)); d != "" {
		return nil, fmt.Errorf("a table at its end would change the meaning of %q", d)
	}
	b, err := findBlock(edited)
	if err != nil {
		return nil, err
	}
	if b == nil || !bytes.Equal(b.cut(edited), text) {
		return nil, errors.New("a block at its end could not be removed again")
	}
	return edited, nil
}

// merge returns a with the values of b, table by table.
func merge(a, b map[string]any) map[string]any {
	out := make(map[string]any, len(a)+len(b))
	for key, value := range a {
		out[key] = value
	}
	for key, value := range b {
		below, ok1 := out[key].(map[string]any)
		more, ok2 := value.(map[string]any)
		if ok1 && ok2 {
			value = merge(below, more)
		}
		out[key] = value
	}
	return out
}
