package codec

import (
	"cmp"
	"math"
	"slices"
)

// TopK moves the indices of the k largest values to the front of order, largest first and
// the smaller index first among equals. NaN counts as the smallest.
func TopK(order []int, values []float64, k int) {
	less := func(a, b int) int {
		x, y := values[a], values[b]

		switch {
		case math.IsNaN(x) && math.IsNaN(y):
			return cmp.Compare(a, b)
		case math.IsNaN(x):
			return 1
		case math.IsNaN(y):
			return -1
		case x != y:
			return cmp.Compare(y, x)
		default:
			return cmp.Compare(a, b)
		}
	}

	// A sorted prefix of k with insertion costs n*log(k) compares at worst; a full sort pays only for large k.
	if k > 32 || len(order) <= 64 {
		slices.SortFunc(order, less)

		return
	}

	best := order[:0:k]
	rest := slices.Clone(order)

	for _, i := range rest {
		if len(best) == k && (k == 0 || less(i, best[k-1]) > 0) {
			continue
		}

		at, _ := slices.BinarySearchFunc(best, i, less)
		if len(best) < k {
			best = append(best, 0)
		}

		copy(best[at+1:], best[at:])
		best[at] = i
	}
}
