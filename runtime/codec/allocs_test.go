//go:build !race

package codec_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/runtime/codec"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

func TestAllocsNonePerValue(t *testing.T) {
	text := floatText(1000, 17)
	dst, out := make([]byte, 0, 8000), make([]byte, 0, 1<<16)

	var s codec.Scanner

	if n := testing.AllocsPerRun(100, func() {
		s.Reset(text)

		data, err := s.Values(dst, "x", engine.FP64, 1000)
		if err != nil {
			t.Fatal(err)
		}

		if _, err := codec.AppendValues(out, &engine.Tensor{Type: engine.FP64, Data: data}); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for 1000 values", n)
	}
}
