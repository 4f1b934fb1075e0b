package main

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Size of a plot.
const (
	plotWidth  = 16 * vg.Centimeter
	plotHeight = 9 * vg.Centimeter
)

// lineColors are those of the lines, in their order.
var lineColors = []color.Color{
	color.RGBA{R: 0x1b, G: 0x7f, B: 0x5c, A: 0xff}, color.RGBA{R: 0x2b, G: 0x5f, B: 0xb3, A: 0xff}, color.RGBA{R: 0xb3, G: 0x54, B: 0x1e, A: 0xff},
}

// drawPlot draws lines over a logarithmic x axis. Each line of the text is "title", "x" or "y" with a text, or "line
// NAME | X Y | …".
func drawPlot(text string) (string, error) {
	p := plot.New()
	p.BackgroundColor = color.White
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min = 0
	p.Legend.Top, p.Legend.Left = true, true
	lines := 0
	for _, line := range content(text) {
		word, rest, _ := strings.Cut(line, " ")
		var err error
		switch word {
		case "title":
			p.Title.Text = rest
		case "x":
			p.X.Label.Text = rest
		case "y":
			p.Y.Label.Text = rest
		case "line":
			err = addLine(p, rest, lineColors[lines%len(lineColors)])
			lines++
		default:
			err = fmt.Errorf("unknown word %q", word)
		}
		if err != nil {
			return "", fmt.Errorf("%q: %w", line, err)
		}
	}
	p.Y.Max *= 1.25 // room for the legend
	return svgOf(p)
}

func addLine(p *plot.Plot, text string, c color.Color) error {
	parts := strings.Split(text, "|")
	var points plotter.XYs
	for _, part := range parts[1:] {
		var at plotter.XY
		if _, err := fmt.Sscan(part, &at.X, &at.Y); err != nil {
			return err
		}
		points = append(points, at)
	}
	if len(points) == 0 || slices.ContainsFunc(points, func(at plotter.XY) bool { return at.X <= 0 }) {
		return errors.New("it needs points to the right of 0")
	}
	line, dots, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	line.Color, line.Width, dots.Color = c, vg.Points(1.5), c
	p.Add(line, dots)
	p.Legend.Add(strings.TrimSpace(parts[0]), line, dots)
	return nil
}

func svgOf(p *plot.Plot) (string, error) {
	canvas := vgsvg.New(plotWidth, plotHeight)
	p.Draw(draw.New(canvas))
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return "", err
	}
	return out.String(), nil
}
