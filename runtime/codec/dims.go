package codec

import "github.com/sluice-gateway/sluice/internal/fault"

// Dims reads over a value and returns its dimensions: none for a scalar, the length of each
// nesting for arrays. Arrays of one level that differ in length are a fault.
func (s *Scanner) Dims() ([]int64, error) {
	var d dims

	if err := d.measure(s, 0); err != nil {
		return nil, err
	}

	return d.known, nil
}

type dims struct {
	known []int64 // by level, as the first array of the level showed
	leaf  int     // level of the scalars, 0 unknown
}

func (d *dims) measure(s *Scanner, level int) error {
	if s.Peek() != '[' {
		if s.Peek() == '{' {
			return fault.New(fault.BadTensor, "An object is no tensor; a value or an array of values is expected.")
		}

		if d.leaf == 0 {
			d.leaf = level + 1
		}

		if d.leaf != level+1 {
			return ragged()
		}

		return s.Skip()
	}

	if d.leaf != 0 && level+1 >= d.leaf {
		return ragged()
	}

	if err := s.BeginArray(); err != nil {
		return err
	}

	n := int64(0)

	for {
		more, err := s.NextElem()
		if err != nil {
			return err
		}

		if !more {
			break
		}

		if n == 0 && len(d.known) == level {
			d.known = append(d.known, -1)
		}

		if err := d.measure(s, level+1); err != nil {
			return err
		}

		n++
	}

	switch {
	case len(d.known) == level:
		d.known = append(d.known, n)
	case d.known[level] < 0:
		d.known[level] = n
	case d.known[level] != n:
		return ragged()
	}

	return nil
}

func ragged() error {
	return fault.New(fault.BadTensor, "The arrays of the value differ in length or depth.")
}
