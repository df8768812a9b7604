package report

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// plot is a line chart as SVG.
type plot struct {
	title, xName, yName string
	xTicks              []tick // given, or made from the values
	logY                bool
	series              []series
}

type tick struct {
	at   float64
	text string
}

type series struct {
	name   string
	points [][2]float64
	dots   bool
}

// Size of a plot and of its margins.
const (
	plotWidth, plotHeight                         = 860, 300
	marginLeft, marginRight, marginTop, marginLow = 70, 16, 34, 46
)

func colors() []string { return []string{"#2563eb", "#dc2626", "#059669", "#9333ea", "#d97706"} }

type scale struct {
	from, to, low, high float64
	log                 bool
}

func (s *scale) at(v float64) float64 {
	low, high := s.low, s.high
	if s.log {
		v, low, high = math.Log10(max(v, s.low)), math.Log10(low), math.Log10(high)
	}

	return s.from + (s.to-s.from)*(v-low)/(high-low)
}

// svg draws the plot; "" if there is nothing to draw.
func (p *plot) svg() template.HTML {
	x, y, ok := p.scales()
	if !ok {
		return ""
	}

	var b strings.Builder

	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s"><text x="%d" y="18" class="title">%s</text>`,
		plotWidth, plotHeight, esc(p.title), marginLeft, esc(p.title))
	p.axes(&b, x, y)

	for i := range p.series {
		p.series[i].draw(&b, x, y, colors()[i%len(colors())])
		p.legend(&b, i)
	}

	b.WriteString("</svg>")

	return template.HTML(b.String()) //nolint:gosec // every text in it is escaped
}

func (p *plot) scales() (x, y *scale, ok bool) {
	x = &scale{from: marginLeft, to: plotWidth - marginRight, low: math.Inf(1), high: math.Inf(-1)}
	y = &scale{from: plotHeight - marginLow, to: marginTop, low: math.Inf(1), high: math.Inf(-1), log: p.logY}

	for _, s := range p.series {
		for _, pt := range s.points {
			x.low, x.high = min(x.low, pt[0]), max(x.high, pt[0])
			y.low, y.high = min(y.low, pt[1]), max(y.high, pt[1])
		}
	}

	if math.IsInf(x.low, 0) {
		return nil, nil, false
	}

	if x.high <= x.low {
		x.high = x.low + 1
	}

	if p.logY {
		const least = 1e-3 // a microsecond, in milliseconds

		y.low = math.Pow(10, math.Floor(math.Log10(max(y.low, least))))
		y.high = math.Pow(10, math.Ceil(math.Log10(max(y.high, 2*y.low))+1e-9))
	} else {
		y.low = 0
		if y.high <= 0 {
			y.high = 1
		}

		y.high *= 1.05
	}

	return x, y, true
}

func (p *plot) axes(b *strings.Builder, x, y *scale) {
	for _, t := range ticks(y) {
		at := y.at(t.at)
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="grid"/><text x="%d" y="%.1f" class="y">%s</text>`,
			marginLeft, plotWidth-marginRight, at, at, marginLeft-6, at+4, esc(t.text))
	}

	list := p.xTicks
	if list == nil {
		list = ticks(x)
	}

	for _, t := range list {
		if t.at < x.low || t.at > x.high {
			continue
		}

		at := x.at(t.at)
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="grid"/><text x="%.1f" y="%d" class="x">%s</text>`,
			at, at, marginTop, plotHeight-marginLow, at, plotHeight-marginLow+16, esc(t.text))
	}

	fmt.Fprintf(b, `<text x="%d" y="%d" class="x">%s</text><text x="12" y="%d" class="name" transform="rotate(-90 12 %d)">%s</text>`,
		(marginLeft+plotWidth-marginRight)/2, plotHeight-10, esc(p.xName), plotHeight/2, plotHeight/2, esc(p.yName))
}

func (s *series) draw(b *strings.Builder, x, y *scale, color string) {
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.6" points="`, color)

	for _, pt := range s.points {
		fmt.Fprintf(b, "%.1f,%.1f ", x.at(pt[0]), y.at(pt[1]))
	}

	b.WriteString(`"/>`)

	if !s.dots {
		return
	}

	for _, pt := range s.points {
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%s: %.4g, %.4g</title></circle>`,
			x.at(pt[0]), y.at(pt[1]), color, esc(s.name), pt[0], pt[1])
	}
}

func (p *plot) legend(b *strings.Builder, i int) {
	const step = 120

	at := plotWidth - marginRight - step*(len(p.series)-i)
	fmt.Fprintf(b, `<rect x="%d" y="10" width="12" height="4" fill="%s"/><text x="%d" y="17" class="legend">%s</text>`,
		at, colors()[i%len(colors())], at+16, esc(p.series[i].name))
}

// ticks chooses round values.
func ticks(s *scale) []tick {
	var out []tick

	if s.log {
		for v := s.low; v <= s.high*1.0001; v *= 10 {
			out = append(out, tick{v, strconv.FormatFloat(v, 'g', 6, 64)})
		}

		return out
	}

	const about = 6

	raw := (s.high - s.low) / about
	unit := math.Pow(10, math.Floor(math.Log10(raw)))

	for _, m := range []float64{1, 2, 5, 10} {
		if unit*m >= raw {
			unit *= m

			break
		}
	}

	for v := math.Ceil(s.low/unit) * unit; v <= s.high; v += unit {
		out = append(out, tick{v, strconv.FormatFloat(round(v, 9), 'g', 8, 64)})
	}

	return out
}

func esc(s string) string { return template.HTMLEscapeString(s) }
