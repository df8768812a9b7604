package loadtest

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// rounds of a comparison as cumulative counts over one grid of values, so that a percentile of any choice of rounds
// is one binary search away.
type cumulated struct {
	grid   []int64
	counts [][]int64 // of each round: how many samples are not above the value of the grid
}

func cumulate(list []*measure.Histogram) *cumulated {
	c := &cumulated{}
	bins := make([][]measure.Bin, len(list))

	for i, h := range list {
		bins[i] = h.Bins()
		for _, b := range bins[i] {
			c.grid = append(c.grid, b.Value)
		}
	}

	slices.Sort(c.grid)
	c.grid = slices.Compact(c.grid)

	for i := range list {
		sums := make([]int64, len(c.grid))
		next, sum := 0, int64(0)

		for g, v := range c.grid {
			for next < len(bins[i]) && bins[i][next].Value <= v {
				sum += bins[i][next].Count
				next++
			}

			sums[g] = sum
		}

		c.counts = append(c.counts, sums)
	}

	return c
}

// quantile is that of the chosen rounds together; a round may be chosen several times.
func (c *cumulated) quantile(q float64, chosen []int) time.Duration {
	last := len(c.grid) - 1
	upTo := func(g int) (n int64) {
		for _, r := range chosen {
			n += c.counts[r][g]
		}

		return n
	}

	if last < 0 {
		return 0
	}

	want := int64(math.Ceil(q * float64(upTo(last))))

	return time.Duration(c.grid[min(sort.Search(last, func(g int) bool { return upTo(g) >= want }), last)])
}

// bootstrap gives the interval that holds 95 % of the ratios B / A of a percentile when the rounds are drawn again,
// with replacement, A and B of a round always together. Both ends are 0 when there is too little to draw from.
func bootstrap(q float64, as, bs []*measure.Histogram) (low, high float64) {
	const (
		draws = 2000
		least = 3 // rounds
		tail  = 0.025
	)

	n := len(as)
	if n < least {
		return 0, 0
	}

	a, b := cumulate(as), cumulate(bs)
	rng := rand.New(rand.NewPCG(1, uint64(n))) //nolint:gosec // the same rounds give the same interval
	chosen := make([]int, n)
	ratios := make([]float64, 0, draws)

	for range draws {
		for i := range chosen {
			chosen[i] = rng.IntN(n)
		}

		va, vb := a.quantile(q, chosen), b.quantile(q, chosen)
		if va <= 0 || vb <= 0 {
			return 0, 0
		}

		ratios = append(ratios, float64(vb)/float64(va))
	}

	slices.Sort(ratios)

	return ratios[int(tail*draws)], ratios[draws-1-int(tail*draws)]
}
