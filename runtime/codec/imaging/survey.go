package imaging

import "slices"

// survey is what the stages need to know of the whole picture. Rows are added in order.
type survey struct {
	min, max float64    // luma
	border   float64    // lower median of the border's luma
	fill     [3]float64 // lower median of the border, per channel

	next int          // the row that comes next
	edge [4][]float64 // luma and three channels of the border
}

// look visits every pixel once.
func look(s *source) survey {
	var v survey

	row := make([]float64, s.w*s.channels)

	for y := range s.h {
		s.row(y, row)
		v.add(s, row)
	}

	v.finish(s)

	return v
}

// add takes the next row.
func (v *survey) add(s *source, row []float64) {
	y := v.next
	v.next++

	if y == 0 {
		v.min = s.luma(row, 0)
		v.max = v.min
	}

	lo, hi := v.min, v.max

	if s.channels == 1 {
		for _, l := range row {
			lo, hi = min(lo, l), max(hi, l)
		}
	} else {
		for x := range s.w {
			l := s.luma(row, x)
			lo, hi = min(lo, l), max(hi, l)
		}
	}

	v.min, v.max = lo, hi

	if y == 0 || y == s.h-1 {
		for x := range s.w {
			v.addEdge(s, row, x)
		}

		return
	}

	v.addEdge(s, row, 0)

	if s.w > 1 {
		v.addEdge(s, row, s.w-1)
	}
}

func (v *survey) addEdge(s *source, row []float64, x int) {
	v.edge[0] = append(v.edge[0], s.luma(row, x))
	for c := range s.channels {
		v.edge[1+c] = append(v.edge[1+c], row[x*s.channels+c])
	}
}

func (v *survey) finish(s *source) {
	v.border = lowerMedian(v.edge[0])
	for c := range s.channels {
		v.fill[c] = lowerMedian(v.edge[1+c])
	}
}

func (s *source) luma(row []float64, x int) float64 {
	if s.channels == 1 {
		return row[x]
	}

	return luma(row[3*x], row[3*x+1], row[3*x+2])
}

func lowerMedian(v []float64) float64 {
	slices.Sort(v)

	return v[(len(v)-1)/2]
}

// light tells whether the background is light.
func (v *survey) light() bool { return v.border > (v.min+v.max)/2 }

// box is a part of the plane of a picture; it may reach beyond the picture.
type box struct{ x, y, w, h int }

// content is the bounding box of what differs from the background, made square and padded.
// A picture without content is taken whole.
func (v *survey) content(s *source, margin float64) box {
	limit := (v.max - v.min) / 4
	left, top, right, bottom := s.w, s.h, -1, -1
	row := make([]float64, s.w*s.channels)

	for y := range s.h {
		s.row(y, row)

		for x := range s.w {
			if d := s.luma(row, x) - v.border; d > limit || -d > limit {
				left, right = min(left, x), max(right, x)
				top, bottom = min(top, y), max(bottom, y)
			}
		}
	}

	if right < 0 {
		return box{0, 0, s.w, s.h}
	}

	w, h := right-left+1, bottom-top+1
	longer := max(w, h)
	side := longer + 2*int(margin*float64(longer)+0.5)

	return box{x: left - floorHalf(side-w), y: top - floorHalf(side-h), w: side, h: side}
}

func floorHalf(n int) int { return n >> 1 }

// cover is the largest centred part with the proportions of width x height.
func (b box) cover(width, height int) box {
	w := min(b.w, max(1, (b.h*width+height/2)/height))
	h := min(b.h, max(1, (b.w*height+width/2)/width))

	return box{x: b.x + floorHalf(b.w-w), y: b.y + floorHalf(b.h-h), w: w, h: h}
}
