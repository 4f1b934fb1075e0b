package main

import (
	"fmt"
	"strings"
)

const (
	nodeWidth = 176
	columnGap = 40
	rowGap    = 10
)

// node is a process and those that it starts.
type node struct {
	name, class, about string
	becomes            bool // its parent becomes this one by exec
	children           []*node

	x, y, h int
}

// drawTree draws a text of lines "NAME | CLASS | ABOUT"; the first line is a title. A process is
// indented by two spaces more than its parent. "= " before a name means that the process above becomes
// this one by exec.
func drawTree(text string) (string, error) {
	lines := content(text)
	if len(lines) < 2 {
		return "", fmt.Errorf("no processes")
	}
	roots, err := parseTree(lines[1:])
	if err != nil {
		return "", err
	}
	y, columns := margin, 0
	for _, root := range roots {
		y = root.place(0, y) + 2*rowGap
		columns = max(columns, root.depth())
	}
	d := &drawing{}
	for _, root := range roots {
		root.draw(d)
	}
	d.text(d.legend(margin, y), y+11, "start", "quiet", "solid: starts; dashed: becomes, by exec")
	width := 2*margin + columns*nodeWidth + (columns-1)*columnGap
	return d.page(width, y+14+margin, lines[0]), nil
}

func parseTree(lines []string) ([]*node, error) {
	top := &node{}
	path := []*node{top}
	for _, line := range lines {
		entry := strings.TrimLeft(line, " ")
		depth := (len(line) - len(entry)) / 2
		fields := strings.Split(entry, " | ")
		if len(fields) != 3 || !isColour(fields[1]) || depth >= len(path) {
			return nil, fmt.Errorf("%q is no line of a tree", line)
		}
		name, becomes := strings.CutPrefix(fields[0], "= ")
		n := &node{name: name, class: fields[1], about: fields[2], becomes: becomes}
		parent := path[depth]
		parent.children = append(parent.children, n)
		path = append(path[:depth+1], n)
	}
	return top.children, nil
}

// place sets the places of a process and of all processes below it, from y on, and returns the first
// free y.
func (n *node) place(column, y int) int {
	n.x = margin + column*(nodeWidth+columnGap)
	n.h = 2*padding + lineHeight*(1+len(n.lines()))
	next := y
	for _, child := range n.children {
		next = child.place(column+1, next)
	}
	if len(n.children) == 0 {
		n.y = y
		return y + n.h + rowGap
	}
	first, last := n.children[0], n.children[len(n.children)-1]
	n.y = (first.y+first.h/2+last.y+last.h/2)/2 - n.h/2
	if n.y < y { // taller than all of its children together
		by := y - n.y
		n.move(by)
		next += by
	}
	return max(next, n.y+n.h+rowGap)
}

// move moves a process and all processes below it down.
func (n *node) move(by int) {
	n.y += by
	for _, child := range n.children {
		child.move(by)
	}
}

func (n *node) lines() []string { return wrap(n.about, nodeWidth-2*padding+2*charWidth) }

func (n *node) depth() int {
	deepest := 0
	for _, child := range n.children {
		deepest = max(deepest, child.depth())
	}
	return deepest + 1
}

func (n *node) draw(d *drawing) {
	d.box(n.x, n.y, nodeWidth, n.h, n.class, n.name, n.lines())
	from, out := n.y+n.h/2, n.x+nodeWidth
	for _, child := range n.children {
		class := "starts"
		if child.becomes {
			class = "becomes"
		}
		to := child.y + child.h/2
		d.add(`<path class="%s" d="M%d %d H%d V%d H%d"/>`, class, out, from, out+columnGap/2, to, child.x-6)
		d.head(child.x, to, false)
		child.draw(d)
	}
}
