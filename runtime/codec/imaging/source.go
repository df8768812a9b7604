package imaging

import (
	"image"
	"image/color"
)

const channelMax = 255.0

// source gives rows of a decoded picture as samples 0..255, upright, composited, grey or in three channels.
type source struct {
	img      image.Image
	w, h     int // upright
	orient   int
	channels int
	alpha    bool // some pixel is not opaque
	back     float64
	raw      []float64 // one row of R, G, B, A
	colors   []float64 // of a palette, likewise
}

func newSource(img image.Image, orient, channels int, background string) *source {
	b := img.Bounds()

	s := &source{img: img, w: b.Dx(), h: b.Dy(), orient: orient, channels: channels}
	if orient >= 5 {
		s.w, s.h = s.h, s.w
	}

	s.raw = make([]float64, 4*s.w)

	if o, ok := img.(interface{ Opaque() bool }); ok && !o.Opaque() {
		s.alpha = true
		s.back = s.background(background)
	}

	return s
}

func (s *source) background(kind string) float64 {
	switch kind {
	case "black":
		return 0
	case "auto":
		var sum, weight float64

		for y := range s.h {
			s.fill(y)

			for i := 0; i < len(s.raw); i += 4 {
				a := s.raw[i+3]
				sum += a * luma(s.raw[i], s.raw[i+1], s.raw[i+2])
				weight += a
			}
		}

		if weight > 0 && sum/weight < channelMax/2 {
			return channelMax
		}

		return 0
	default:
		return channelMax
	}
}

func luma(r, g, b float64) float64 {
	if r == g && g == b { // grey stays exactly what it is
		return r
	}

	return 0.299*r + 0.587*g + 0.114*b
}

// row writes the samples of one upright row.
func (s *source) row(y int, dst []float64) {
	if g, ok := s.img.(*image.Gray); ok && s.orient == 1 && s.channels == 1 {
		at := g.PixOffset(g.Rect.Min.X, g.Rect.Min.Y+y)
		for x, v := range g.Pix[at : at+s.w] {
			dst[x] = float64(v)
		}

		return
	}

	s.fill(y)

	if s.alpha {
		s.composite()
	}

	if s.channels == 1 {
		for x := range s.w {
			p := s.raw[4*x : 4*x+4 : 4*x+4]
			dst[x] = luma(p[0], p[1], p[2])
		}

		return
	}

	for x := range s.w {
		copy(dst[3*x:3*x+3], s.raw[4*x:4*x+3])
	}
}

func (s *source) composite() {
	for i := 0; i < len(s.raw); i += 4 {
		p := s.raw[i : i+4 : i+4]

		a := p[3] / channelMax
		if a == 1 {
			continue
		}

		rest := s.back * (1 - a)
		p[0], p[1], p[2] = p[0]*a+rest, p[1]*a+rest, p[2]*a+rest
	}
}

// fill reads one upright row into raw.
func (s *source) fill(y int) {
	if s.orient != 1 {
		s.turned(y)

		return
	}

	b := s.img.Bounds()

	switch m := s.img.(type) {
	case *image.Gray:
		at := m.PixOffset(b.Min.X, b.Min.Y+y)
		for x, v := range m.Pix[at : at+s.w] {
			set(s.raw[4*x:], v, v, v, 255)
		}
	case *image.NRGBA:
		s.bytes(m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):])
	case *image.RGBA: // the decoders use it for opaque pictures only
		s.bytes(m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):])
	case *image.YCbCr:
		s.ycbcr(m, y)
	case *image.NYCbCrA:
		s.ycbcr(&m.YCbCr, y)

		for x, a := range m.A[m.AOffset(b.Min.X, b.Min.Y+y):][:s.w] {
			s.raw[4*x+3] = float64(a)
		}
	case *image.Gray16:
		s.gray16(m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):])
	case *image.NRGBA64:
		s.words(m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):])
	case *image.RGBA64: // opaque, as RGBA
		s.words(m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):])
	case *image.Paletted:
		s.paletted(m, m.Pix[m.PixOffset(b.Min.X, b.Min.Y+y):])
	default:
		for x := range s.w {
			s.pixel(b.Min.X+x, b.Min.Y+y, s.raw[4*x:])
		}
	}
}

// ycbcr reads a row of a JPEG.
func (s *source) ycbcr(m *image.YCbCr, y int) {
	x0, y0 := m.Rect.Min.X, m.Rect.Min.Y+y
	luma := m.Y[m.YOffset(x0, y0):][:s.w]

	shift := 0

	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio422, image.YCbCrSubsampleRatio420:
		shift = 1
	case image.YCbCrSubsampleRatio411, image.YCbCrSubsampleRatio410:
		shift = 2
	case image.YCbCrSubsampleRatio444, image.YCbCrSubsampleRatio440:
	}

	at := m.COffset(x0, y0) - x0>>shift
	for x, l := range luma {
		ci := at + (x0+x)>>shift
		r, g, b := color.YCbCrToRGB(l, m.Cb[ci], m.Cr[ci])
		set(s.raw[4*x:], r, g, b, 255)
	}
}

func (s *source) bytes(pix []byte) {
	for i, v := range pix[:4*s.w] {
		s.raw[i] = float64(v)
	}
}

const wide = 257.0 // a 16-bit sample of it is one of 8 bits

// gray16 reads a row of big-endian samples.
func (s *source) gray16(pix []byte) {
	for x := range s.w {
		v := float64(uint16(pix[2*x])<<8|uint16(pix[2*x+1])) / wide
		p := s.raw[4*x : 4*x+4 : 4*x+4]
		p[0], p[1], p[2], p[3] = v, v, v, channelMax
	}
}

func (s *source) words(pix []byte) {
	pix = pix[:8*s.w]
	for i := range s.raw[:4*s.w] {
		s.raw[i] = float64(uint16(pix[2*i])<<8|uint16(pix[2*i+1])) / wide
	}
}

// paletted looks colours up; an index beyond the palette counts as its last colour.
func (s *source) paletted(m *image.Paletted, pix []byte) {
	if len(s.colors) == 0 {
		s.colors = make([]float64, 4*len(m.Palette))
		for i, c := range m.Palette {
			s.convert(c, s.colors[4*i:])
		}
	}

	last := len(m.Palette) - 1
	for x, i := range pix[:s.w] {
		k := min(int(i), last)
		copy(s.raw[4*x:4*x+4], s.colors[4*k:4*k+4])
	}
}

func set(dst []float64, r, g, b, a byte) {
	dst = dst[:4]
	dst[0], dst[1], dst[2], dst[3] = float64(r), float64(g), float64(b), float64(a)
}

// turned reads a row of a picture that is stored rotated or mirrored.
func (s *source) turned(y int) {
	b := s.img.Bounds()
	right, bottom := b.Dx()-1, b.Dy()-1

	for x := range s.w {
		var sx, sy int

		switch s.orient {
		case 2:
			sx, sy = right-x, y
		case 3:
			sx, sy = right-x, bottom-y
		case 4:
			sx, sy = x, bottom-y
		case 5:
			sx, sy = y, x
		case 6:
			sx, sy = y, bottom-x
		case 7:
			sx, sy = right-y, bottom-x
		default: // 8
			sx, sy = right-y, x
		}

		s.pixel(b.Min.X+sx, b.Min.Y+sy, s.raw[4*x:])
	}
}

// pixel reads one stored pixel, not premultiplied.
func (s *source) pixel(x, y int, dst []float64) {
	dst = dst[:4]

	switch m := s.img.(type) {
	case *image.YCbCr:
		yi, ci := m.YOffset(x, y), m.COffset(x, y)
		r, g, b := color.YCbCrToRGB(m.Y[yi], m.Cb[ci], m.Cr[ci])
		set(dst, r, g, b, 255)
	case *image.Gray:
		v := m.GrayAt(x, y).Y
		set(dst, v, v, v, 255)
	case *image.CMYK:
		c := m.CMYKAt(x, y)
		r, g, b := color.CMYKToRGB(c.C, c.M, c.Y, c.K)
		set(dst, r, g, b, 255)
	default:
		s.convert(s.img.At(x, y), dst)
	}
}

func (s *source) convert(c color.Color, dst []float64) {
	switch c := c.(type) {
	case color.NRGBA:
		set(dst, c.R, c.G, c.B, c.A)
	case color.RGBA:
		if c.A == 255 {
			set(dst, c.R, c.G, c.B, c.A)

			return
		}

		s.convert(color.NRGBA64Model.Convert(c), dst)
	case color.NRGBA64:
		dst[0], dst[1], dst[2], dst[3] = float64(c.R)/wide, float64(c.G)/wide, float64(c.B)/wide, float64(c.A)/wide
	default:
		s.convert(color.NRGBA64Model.Convert(c), dst)
	}
}
