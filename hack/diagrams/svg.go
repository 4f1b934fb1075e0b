package main

import (
	"fmt"
	"html"
	"strings"
)

// Sizes in pixels. A character's width is that of a wide font: text is not measured.
const (
	lineHeight = 16
	charWidth  = 7
	margin     = 16
	padding    = 8
)

// style has the colours for light and for dark pages. The background is part of the picture,
// because a page and its reader's system may disagree about which of the two it is.
const style = `
svg { font: 12px system-ui, "DejaVu Sans", sans-serif; }
.page { fill: #ffffff; }
text { fill: #1f2328; }
.name { font-weight: 600; }
.quiet { fill: #59636e; }
.halo { stroke: #ffffff; stroke-width: 4px; paint-order: stroke; }
rect { stroke: #8c959f; }
.root { fill: #fff1d6; stroke: #b08800; }
.confined { fill: #dcf5e3; stroke: #2da44e; }
.theirs { fill: #eef1f4; stroke: #8c959f; }
path, line { stroke: #59636e; fill: none; }
.lifeline { stroke: #d1d9e0; }
.becomes { stroke-dasharray: 4 3; }
.head { fill: #59636e; stroke: none; }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117; }
text { fill: #f0f6fc; }
.quiet { fill: #9198a1; }
.halo { stroke: #0d1117; }
.root { fill: #3a2e0a; stroke: #d29922; }
.confined { fill: #12321d; stroke: #3fb950; }
.theirs { fill: #212830; stroke: #656c76; }
path, line { stroke: #9198a1; }
.lifeline { stroke: #3d444d; }
.head { fill: #9198a1; }
}
`

// colours are the classes of boxes, with the legend's text for each.
var colours = []struct{ class, about string }{
	{"root", "ours, root on the host"},
	{"confined", "confined"},
	{"theirs", "not ours"},
}

func isColour(class string) bool {
	for _, c := range colours {
		if c.class == class {
			return true
		}
	}
	return false
}

// drawing collects the elements of a picture.
type drawing struct{ body strings.Builder }

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(&d.body, format+"\n", args...) }

func (d *drawing) text(x, y int, anchor, class, text string) {
	d.add(`<text x="%d" y="%d" text-anchor="%s" class="%s">%s</text>`, x, y, anchor, class, html.EscapeString(text))
}

func (d *drawing) rect(x, y, w, h int, class string) {
	d.add(`<rect x="%d" y="%d" width="%d" height="%d" rx="6" class="%s"/>`, x, y, w, h, class)
}

// box draws a box with a name and subdued lines below it.
func (d *drawing) box(x, y, w, h int, class, name string, lines []string) {
	d.rect(x, y, w, h, class)
	top := y + (h-lineHeight*(1+len(lines)))/2 + lineHeight - 4
	d.text(x+w/2, top, "middle", "name", name)
	for i, line := range lines {
		d.text(x+w/2, top+lineHeight*(i+1), "middle", "quiet", line)
	}
}

// head draws an arrowhead with its tip at the given place; it points to the right or to the
// left.
func (d *drawing) head(x, y int, left bool) {
	back := x - 8
	if left {
		back = x + 8
	}
	d.add(`<path class="head" d="M%d %d L%d %d L%d %d Z"/>`, x, y, back, y-4, back, y+4)
}

// legend explains the colours and returns where it ends.
func (d *drawing) legend(x, y int) int {
	for _, c := range colours {
		d.rect(x, y, 14, 14, c.class)
		d.text(x+20, y+11, "start", "quiet", c.about)
		x += 20 + charWidth*len(c.about) + 2*margin
	}
	return x
}

// page returns the whole file.
func (d *drawing) page(w, h int, title string) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">
<!-- Drawn from the text beside this file; make diagrams does it. -->
<title>%s</title>
<style>%s</style>
<rect class="page" x="0" y="0" width="%d" height="%d" style="stroke: none"/>
%s</svg>
`, w, h, w, h, html.EscapeString(title), style, w, h, d.body.String())
}

// wrap breaks a text into lines that fit into a width.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case (len(line)+1+len(word))*charWidth > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
