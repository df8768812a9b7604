package imaging

import "math"

// taps are the source pixels that make one output pixel.
type taps struct {
	first   int
	weights []float64
}

// kernel computes the taps for shrinking or enlarging n pixels to m.
func kernel(method string, n, m int) []taps {
	switch method {
	case "nearest":
		return nearest(n, m)
	case "bilinear":
		return filtered(n, m, 1, func(x float64) float64 { return max(0, 1-math.Abs(x)) })
	case "bicubic":
		return filtered(n, m, 2, catmullRom)
	default:
		return area(n, m)
	}
}

func nearest(n, m int) []taps {
	out := make([]taps, m)
	for i := range out {
		out[i] = taps{first: (2*i + 1) * n / (2 * m), weights: []float64{1}}
	}

	return out
}

// area weighs each source pixel by how much of it the output pixel covers. Borders are kept as
// integers over m, so that whole pixels have exactly the same weight.
func area(n, m int) []taps {
	out := make([]taps, m)

	for i := range out {
		from, to := i*n, (i+1)*n // in units of 1/m source pixels
		first, last := from/m, (to-1)/m
		weights := make([]float64, 0, last-first+1)

		for j := first; j <= last; j++ {
			covered := min(to, (j+1)*m) - max(from, j*m)
			weights = append(weights, float64(covered)/float64(n))
		}

		out[i] = taps{first: first, weights: weights}
	}

	return out
}

// filtered samples a kernel of the given support, widened by the factor of shrinking.
func filtered(n, m int, support float64, f func(float64) float64) []taps {
	scale := float64(n) / float64(m)
	wide := max(scale, 1)
	out := make([]taps, m)

	for i := range out {
		center := (float64(i) + 0.5) * scale
		first := max(0, int(math.Floor(center-support*wide)))
		last := min(n-1, int(math.Ceil(center+support*wide)))

		var (
			weights []float64
			sum     float64
		)

		for j := first; j <= last; j++ {
			w := f((float64(j) + 0.5 - center) / wide)
			weights = append(weights, w)
			sum += w
		}

		for j := range weights {
			weights[j] /= sum
		}

		out[i] = taps{first: first, weights: weights}
	}

	return out
}

func catmullRom(x float64) float64 {
	const a = -0.5

	x = math.Abs(x)

	switch {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return (((x-5)*x+8)*x - 4) * a
	default:
		return 0
	}
}

// resizer makes a picture of ow x oh from a box of a source.
type resizer struct {
	src  *source
	box  box
	fill [3]float64
	see  *survey // told of every row that is read, if set
	ow   int
	cols []taps
	rows []taps

	in    []float64 // one row of the box
	cache []float64 // horizontally resized rows, slot y modulo depth
	tag   []int
}

// newResizer prepares for a picture of ow x oh. fill is the colour outside the picture.
func newResizer(src *source, b box, method string, ow, oh int) *resizer {
	r := &resizer{src: src, box: b, ow: ow, cols: kernel(method, b.w, ow), rows: kernel(method, b.h, oh)}

	depth := 1
	for _, t := range r.rows {
		depth = max(depth, len(t.weights))
	}

	// Rows are used once when the windows do not overlap; then one slot is enough.
	r.tag = make([]int, min(depth, b.h)+1)
	for i := range r.tag {
		r.tag[i] = -1
	}

	r.cache = make([]float64, len(r.tag)*ow*src.channels)
	r.in = make([]float64, b.w*src.channels)

	return r
}

// run writes the samples into out at (ox, oy) of a picture that is width pixels wide.
func (r *resizer) run(out []float64, width, ox, oy int) {
	n := r.ow * r.src.channels

	for i, t := range r.rows {
		at := ((oy+i)*width + ox) * r.src.channels
		dst := out[at : at+n]
		clear(dst)

		for k, w := range t.weights {
			row := r.wide(t.first + k)
			for j, v := range row {
				dst[j] += w * v
			}
		}
	}
}

// wide is row y of the box, horizontally resized.
func (r *resizer) wide(y int) []float64 {
	n := r.ow * r.src.channels
	slot := y % len(r.tag)
	dst := r.cache[slot*n : (slot+1)*n]

	if r.tag[slot] == y {
		return dst
	}

	r.tag[slot] = y
	r.read(y)

	ch := r.src.channels
	for i, t := range r.cols {
		in := r.in[t.first*ch:]

		if ch == 1 {
			var sum float64
			for k, w := range t.weights {
				sum += w * in[k]
			}

			dst[i] = sum

			continue
		}

		var a, b, c float64

		for k, w := range t.weights {
			p := in[3*k : 3*k+3 : 3*k+3]
			a += w * p[0]
			b += w * p[1]
			c += w * p[2]
		}

		dst[3*i], dst[3*i+1], dst[3*i+2] = a, b, c
	}

	return dst
}

// read gets row y of the box; what lies outside the picture has the fill colour.
func (r *resizer) read(y int) {
	s, b, ch := r.src, r.box, r.src.channels
	if b == (box{0, 0, s.w, s.h}) {
		s.row(y, r.in)

		if r.see != nil && r.see.next == y {
			r.see.add(s, r.in)
		}

		return
	}

	for x := range b.w {
		copy(r.in[x*ch:(x+1)*ch], r.fill[:ch])
	}

	if y+b.y < 0 || y+b.y >= s.h {
		return
	}

	whole := make([]float64, s.w*ch)
	s.row(y+b.y, whole)

	from, to := max(0, b.x), min(s.w, b.x+b.w)
	copy(r.in[(from-b.x)*ch:], whole[from*ch:to*ch])
}
