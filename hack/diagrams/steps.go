package main

import (
	"fmt"
	"strings"
)

const (
	laneWidth  = 200
	laneHeight = 48
	stepGap    = 12
)

// lane is one participant, with its lifeline at x.
type lane struct {
	name, class, about string
	x                  int
}

// steps is a diagram under construction: y is where the next step begins.
type steps struct {
	lanes []lane
	marks drawing
	y     int
}

// drawSteps draws a text whose first line is a title. Lines "lane NAME | CLASS | ABOUT" define the
// participants, from left to right. After them come the steps: "A > B: TEXT" is an arrow, "A: TEXT" is
// an action of A alone, and "-- TEXT" is a heading.
func drawSteps(text string) (string, error) {
	lines := content(text)
	if len(lines) < 2 {
		return "", fmt.Errorf("no steps")
	}
	s := &steps{y: margin + laneHeight + stepGap}
	for _, line := range lines[1:] {
		if err := s.add(line); err != nil {
			return "", err
		}
	}
	bottom := s.y + stepGap
	d := &drawing{}
	for _, l := range s.lanes {
		d.add(`<line class="lifeline" x1="%d" y1="%d" x2="%d" y2="%d"/>`, l.x, margin+laneHeight, l.x, bottom)
		d.box(l.x-laneWidth/2+10, margin, laneWidth-20, laneHeight, l.class, l.name, wrap(l.about, laneWidth))
	}
	d.body.WriteString(s.marks.body.String())
	d.legend(margin, bottom+margin)
	return d.page(2*margin+laneWidth*len(s.lanes), bottom+14+2*margin, lines[0]), nil
}

func (s *steps) add(line string) error {
	if about, ok := strings.CutPrefix(line, "lane "); ok {
		fields := strings.Split(about, " | ")
		if len(fields) != 3 || !isColour(fields[1]) {
			return fmt.Errorf("%q is no lane", line)
		}
		x := margin + laneWidth*len(s.lanes) + laneWidth/2
		s.lanes = append(s.lanes, lane{fields[0], fields[1], fields[2], x})
		return nil
	}
	if heading, ok := strings.CutPrefix(line, "-- "); ok {
		s.heading(heading)
		return nil
	}
	who, what, ok := strings.Cut(line, ": ")
	if !ok {
		return fmt.Errorf("%q is no step", line)
	}
	from, to, arrow := strings.Cut(who, " > ")
	a, err := s.find(from)
	if err != nil {
		return err
	}
	if !arrow {
		s.note(a, what)
		return nil
	}
	b, err := s.find(to)
	if err != nil {
		return err
	}
	s.arrow(a, b, what)
	return nil
}

func (s *steps) find(name string) (lane, error) {
	for _, l := range s.lanes {
		if l.name == name {
			return l, nil
		}
	}
	return lane{}, fmt.Errorf("no lane %q", name)
}

func (s *steps) heading(text string) {
	s.y += stepGap
	right := 2*margin + laneWidth*len(s.lanes) - margin
	s.marks.add(`<line class="becomes" x1="%d" y1="%d" x2="%d" y2="%d"/>`, margin, s.y, right, s.y)
	s.marks.text(margin, s.y+lineHeight, "start", "name halo", text)
	s.y += lineHeight + stepGap
}

func (s *steps) note(at lane, text string) {
	const width = laneWidth - 16
	lines := wrap(text, width-2*padding+2*charWidth)
	h := lineHeight*len(lines) + padding
	s.marks.rect(at.x-width/2, s.y, width, h, at.class)
	for i, line := range lines {
		s.marks.text(at.x, s.y+lineHeight*(i+1)-1, "middle", "", line)
	}
	s.y += h + stepGap
}

func (s *steps) arrow(a, b lane, text string) {
	span := b.x - a.x
	left := span < 0
	tail, tip := a.x+2, b.x-2
	if left {
		span, tail, tip = -span, a.x-2, b.x+2
	}
	lines := wrap(text, span-4)
	for i, line := range lines {
		s.marks.text((a.x+b.x)/2, s.y+lineHeight*(i+1)-4, "middle", "halo", line)
	}
	s.y += lineHeight*len(lines) + 4
	s.marks.add(`<line x1="%d" y1="%d" x2="%d" y2="%d"/>`, tail, s.y, tip, s.y)
	s.marks.head(tip, s.y, left)
	s.y += stepGap
}
