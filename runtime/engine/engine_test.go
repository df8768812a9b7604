package engine_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

func TestDataTypesRoundTrip(t *testing.T) {
	t.Parallel()

	for d := engine.Bool; d <= engine.Bytes; d++ {
		if got := engine.ParseDataType(d.String()); got != d {
			t.Errorf("%v parses as %v", d, got)
		}

		if (d.Size() == 0) != (d == engine.Bytes) {
			t.Errorf("%v has %d bytes", d, d.Size())
		}
	}

	for _, name := range []string{"", "INVALID", "fp32", "FLOAT"} {
		if got := engine.ParseDataType(name); got != engine.Invalid {
			t.Errorf("%q parses as %v", name, got)
		}
	}

	if d := engine.DataType(200); d.String() != "INVALID" || d.Size() != 0 {
		t.Errorf("unknown type is %v of %d bytes", d, d.Size())
	}
}

func TestElements(t *testing.T) {
	t.Parallel()

	for _, tc := range []struct {
		shape []int64
		want  int64
	}{
		{nil, 1},
		{[]int64{3}, 3},
		{[]int64{2, 3, 4}, 24},
		{[]int64{2, 0, 4}, 0},
		{[]int64{0, 1 << 62, 1 << 62}, 0},
		{[]int64{1 << 62, 1 << 62, 0}, 0},
		{[]int64{1 << 20, 1 << 20}, 1 << 40},
		{[]int64{1 << 20, 1 << 21}, -1},
		{[]int64{1 << 62, 1 << 62}, -1},
		{[]int64{-1}, -1},
		{[]int64{0, -1}, -1},
		{[]int64{-1, -1}, -1},
	} {
		if got := engine.Elements(tc.shape); got != tc.want {
			t.Errorf("%v holds %d, want %d", tc.shape, got, tc.want)
		}
	}
}
