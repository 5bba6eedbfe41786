// Package plots draws explanations and drift: waterfall, local and global bars,
// and a feature's reference beside its current values, as SVG or PNG bytes.
//
// It owns how the figures look, after the habits of shap's users: red pushes up,
// blue pulls down, the largest effect on top, "N other features" at the end. It
// computes no attribution and no statistic, and writes to no file or response.
//
// Invariants: the background is transparent, so that a figure stands on a light
// or a dark page; text has a colour of its own (Theme); labels are cut to what
// the width has room for, never drawn over each other; the same input gives the
// same bytes.
package plots

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Format is what a figure is written as.
type Format string

// The formats.
const (
	SVG Format = "svg"
	PNG Format = "png"
)

// Theme is the page a figure stands on.
type Theme string

// The themes. Page is for SVG inside HTML: text and lines take the colour of the
// text around the figure (CSS currentColor), light or dark.
const (
	Light Theme = "light"
	Dark  Theme = "dark"
	Page  Theme = "page"
)

// Options shape a figure. The zero value is a light SVG of 640 pixels.
type Options struct {
	Format Format // default SVG
	Theme  Theme  // default Light
	// Width in CSS pixels, between 240 and 4096; 0 means 640. The height
	// follows from what is drawn.
	Width int
	// MaxFeatures is how many bars are drawn, the rest being summed in the
	// last; 0 means 10.
	MaxFeatures int
	// Title stands above the figure; empty means none.
	Title string
}

func (o Options) withDefaults() (Options, error) {
	if o.Format == "" {
		o.Format = SVG
	}
	if o.Theme == "" {
		o.Theme = Light
	}
	if o.Width == 0 {
		o.Width = 640
	}
	if o.MaxFeatures == 0 {
		o.MaxFeatures = 10
	}
	switch {
	case o.Format != SVG && o.Format != PNG:
		return o, fmt.Errorf("draw plot: unknown format %q", o.Format)
	case o.Theme != Light && o.Theme != Dark && o.Theme != Page:
		return o, fmt.Errorf("draw plot: unknown theme %q", o.Theme)
	case o.Theme == Page && o.Format != SVG:
		return o, errors.New("draw plot: only SVG can take its colours from the page")
	case o.Width < 240 || o.Width > 4096:
		return o, fmt.Errorf("draw plot: width %d is not between 240 and 4096", o.Width)
	case o.MaxFeatures < 2 || o.MaxFeatures > 100:
		return o, fmt.Errorf("draw plot: %d features are not between 2 and 100", o.MaxFeatures)
	}
	return o, nil
}

// Colours of effects and series, readable on light and on dark.
var (
	positive  = color.NRGBA{R: 0xff, G: 0x00, B: 0x51, A: 0xff}
	negative  = color.NRGBA{R: 0x00, G: 0x8b, B: 0xfb, A: 0xff}
	reference = color.NRGBA{R: 0x8a, G: 0x93, B: 0x9e, A: 0xff}
	current   = color.NRGBA{R: 0x1e, G: 0x88, B: 0xe5, A: 0xff}
	white     = color.NRGBA{R: 0xff, G: 0xff, B: 0xff, A: 0xff}
)

// pageInk stands for the page's own colour until the SVG is written. Nothing
// else may have it.
var pageInk = color.NRGBA{R: 0x01, G: 0x23, B: 0x45, A: 0xff}

// palette are the colours that depend on the theme.
type palette struct{ ink, muted, grid color.NRGBA }

func paletteOf(t Theme) palette {
	switch t {
	case Dark:
		return palette{
			ink:   color.NRGBA{R: 0xe8, G: 0xea, B: 0xed, A: 0xff},
			muted: color.NRGBA{R: 0xa8, G: 0xae, B: 0xb8, A: 0xff},
			grid:  color.NRGBA{R: 0x4a, G: 0x50, B: 0x5a, A: 0xff},
		}
	case Page:
		return palette{ink: pageInk, muted: pageInk, grid: color.NRGBA{R: 0x8a, G: 0x90, B: 0x99, A: 0xff}}
	}
	return palette{
		ink:   color.NRGBA{R: 0x1c, G: 0x1f, B: 0x24, A: 0xff},
		muted: color.NRGBA{R: 0x5f, G: 0x66, B: 0x70, A: 0xff},
		grid:  color.NRGBA{R: 0xcc, G: 0xcc, B: 0xcc, A: 0xff},
	}
}

// px is a CSS pixel in gonum's points.
const px = vg.Length(0.75)

// Sizes in CSS pixels.
const (
	fontSize  = 13
	rowHeight = 30
	barHeight = 20
	margin    = 10
)

// sheet is a drawing surface in CSS pixels with y growing downwards.
type sheet struct {
	c             draw.Canvas
	colors        palette
	width, height float64
}

// render draws a figure of the given height and returns its bytes.
func render(o Options, height float64, label string, paint func(s *sheet)) ([]byte, error) {
	s := &sheet{colors: paletteOf(o.Theme), width: float64(o.Width), height: height}
	w, h := vg.Length(s.width)*px, vg.Length(height)*px
	var out bytes.Buffer
	if o.Format == PNG {
		c := vgimg.NewWith(vgimg.UseWH(w, h), vgimg.UseDPI(192), vgimg.UseBackgroundColor(color.Transparent))
		s.c = draw.New(c)
		paint(s)
		if _, err := (vgimg.PngCanvas{Canvas: c}).WriteTo(&out); err != nil {
			return nil, fmt.Errorf("write PNG: %w", err)
		}
		return out.Bytes(), nil
	}
	c := vgsvg.New(w, h)
	s.c = draw.New(c)
	paint(s)
	if _, err := c.WriteTo(&out); err != nil {
		return nil, fmt.Errorf("write SVG: %w", err)
	}
	return dress(out.String(), s, o.Theme, label), nil
}

// dress makes gonum's SVG fit for a page: sized in pixels, named for screen
// readers, and in the page's colour and its sans-serif font.
func dress(svg string, s *sheet, t Theme, label string) []byte {
	if at := strings.Index(svg, "<svg"); at >= 0 {
		svg = svg[at:]
	}
	head := fmt.Sprintf(`<svg role="img" aria-label="%s" width="%g" height="%g"`, escape(label), s.width, s.height)
	if from := strings.Index(svg, " viewBox="); from >= 0 {
		svg = head + svg[from:]
	}
	if t == Page {
		svg = strings.ReplaceAll(svg, "#012345", "currentColor")
	}
	return []byte(strings.ReplaceAll(svg, "font-family:Liberation Sans", "font-family:'Liberation Sans',Arial,Helvetica,sans-serif"))
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "\n", " ", "\r", " ")

func escape(s string) string { return escaper.Replace(s) }

// align says which point of a text stands where it is put.
type align struct{ x, y float64 }

var (
	toRight  = align{0, -0.5}  // text begins at the point
	toLeft   = align{-1, -0.5} // text ends at the point
	centered = align{-0.5, -0.5}
)

func style(size float64, ink color.Color, a align) draw.TextStyle {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Length(size) * px}
	return draw.TextStyle{
		Color: ink, Font: f, Handler: text.Plain{Fonts: plot.DefaultTextHandler.Cache()},
		XAlign: text.XAlignment(a.x), YAlign: text.YAlignment(a.y),
	}
}

// write puts a line of text.
func (s *sheet) write(x, y float64, txt string, size float64, ink color.Color, a align) {
	s.c.FillText(style(size, ink, a), s.at(x, y), clean(txt))
}

// textWidth measures a line of text.
func textWidth(txt string, size float64) float64 {
	return float64(style(size, color.Black, toRight).Width(clean(txt)) / px)
}

// clean removes what would break a line or an XML file.
func clean(txt string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd || r == 0xfffe || r == 0xffff {
			return ' '
		}
		return r
	}, txt)
}

// fit cuts txt to width, marking the cut.
func fit(txt string, width, size float64) string {
	if textWidth(txt, size) <= width {
		return txt
	}
	runes := []rune(txt)
	if len(runes) > 200 {
		runes = runes[:200]
	}
	for len(runes) > 1 {
		runes = runes[:len(runes)-1]
		if cut := strings.TrimRight(string(runes), " ") + "…"; textWidth(cut, size) <= width {
			return cut
		}
	}
	return "…"
}

func (s *sheet) at(x, y float64) vg.Point {
	return vg.Point{X: vg.Length(x) * px, Y: vg.Length(s.height-y) * px}
}

// fill fills a polygon of x, y pairs.
func (s *sheet) fill(ink color.Color, xy ...float64) {
	var p vg.Path
	p.Move(s.at(xy[0], xy[1]))
	for i := 2; i < len(xy); i += 2 {
		p.Line(s.at(xy[i], xy[i+1]))
	}
	p.Close()
	s.c.SetColor(ink)
	s.c.Fill(p)
}

// line draws a straight line, dashed where dash is given.
func (s *sheet) line(ink color.Color, x1, y1, x2, y2 float64, dash ...float64) {
	st := draw.LineStyle{Color: ink, Width: px}
	for _, d := range dash {
		st.Dashes = append(st.Dashes, vg.Length(d)*px)
	}
	s.c.StrokeLine2(st, s.at(x1, y1).X, s.at(x1, y1).Y, s.at(x2, y2).X, s.at(x2, y2).Y)
}

// scale maps values to pixels.
type scale struct{ lo, hi, from, to float64 }

func (a scale) at(v float64) float64 {
	if a.hi <= a.lo {
		return (a.from + a.to) / 2
	}
	return a.from + (v-a.lo)/(a.hi-a.lo)*(a.to-a.from)
}

// axis draws ticks under the figure, no more than there is room for.
func (s *sheet) axis(a scale, y float64) {
	s.line(s.colors.grid, a.from, y, a.to, y)
	last := math.Inf(-1)
	for _, t := range (plot.DefaultTicks{}).Ticks(a.lo, a.hi) {
		x := a.at(t.Value)
		if t.Label == "" || x < a.from-1 || x > a.to+1 {
			continue
		}
		label := number(t.Value)
		half := textWidth(label, fontSize-2) / 2
		if x-half < last+10 {
			continue
		}
		last = x + half
		s.line(s.colors.grid, x, y, x, y+4)
		s.write(x, y+13, label, fontSize-2, s.colors.muted, centered)
	}
}

// number writes a value briefly, as people read it.
func number(v float64) string {
	switch a := math.Abs(v); {
	case v == 0:
		return "0"
	case a >= 1e6 || a < 1e-3:
		return strconv.FormatFloat(v, 'g', 3, 64)
	case a >= 1000:
		return trimmed(v, 0)
	case a >= 10:
		return trimmed(v, 2)
	}
	return trimmed(v, 3)
}

func trimmed(v float64, digits int) string {
	t := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(t, ".") {
		t = strings.TrimRight(strings.TrimRight(t, "0"), ".")
	}
	return t
}

// signed writes an effect with its sign.
func signed(v float64) string {
	switch a := math.Abs(v); {
	case v == 0:
		return "0"
	case a >= 1e5 || a < 0.005:
		return fmt.Sprintf("%+.2g", v)
	}
	return fmt.Sprintf("%+.2f", v)
}
