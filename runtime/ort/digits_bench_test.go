package ort_test

import (
	"fmt"
	"testing"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// BenchmarkDigits is the bare loop that the worker is held against: the sample model, one run after the other.
func BenchmarkDigits(b *testing.B) {
	s, err := newEngine(b).Load(b.Context(), engine.LoadSpec{Path: "../../configs/models/digits/model.onnx"})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()

	for _, rows := range []int64{1, 8} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			info := s.Inputs()[0]
			shape := append([]int64{rows}, info.Shape[1:]...)
			n := int64(4)

			for _, d := range shape {
				n *= d
			}

			in := []engine.Tensor{{Name: info.Name, Type: engine.FP32, Shape: shape, Data: make([]byte, n)}}

			b.ReportAllocs()

			for b.Loop() {
				_, release, err := s.Run(b.Context(), in, nil)
				if err != nil {
					b.Fatal(err)
				}

				release()
			}
		})
	}
}
