package launch

import (
	"slices"
	"testing"
)

func TestProcessorsAreSpread(t *testing.T) {
	t.Parallel()

	s := cpuSet{all: []int{0, 2, 4, 6}, used: map[int]int{}}

	for i, tc := range []struct {
		limit float64
		want  []int
	}{{0, nil}, {4, nil}, {5.5, nil}, {1, []int{0}}, {0.1, []int{2}}, {1.5, []int{4, 6}}, {1, []int{0}}, {3.2, nil}} {
		if got := s.take(tc.limit); !slices.Equal(got, tc.want) {
			t.Errorf("%d: limit %g got %v, want %v", i, tc.limit, got, tc.want)
		}
	}

	s.give([]int{4, 6})

	if got := s.take(2); !slices.Equal(got, []int{4, 6}) {
		t.Errorf("what was given back is not used: %v", got)
	}

	if got := cpuList([]int{1, 12}); got != "1,12" {
		t.Error(got)
	}

	for _, bad := range []string{"", "x", "-1", "1,", "100000"} {
		if bind(bad) == nil {
			t.Errorf("bound to %q", bad)
		}
	}
}
