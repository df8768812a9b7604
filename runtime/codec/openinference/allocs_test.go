//go:build !race

package openinference_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/runtime/codec/openinference"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

func TestAllocsNoneForAnInference(t *testing.T) {
	var r openinference.Request

	m := pair()
	body := []byte(`{"id":"a","inputs":[` + inputA + `,` + inputB + `],"outputs":[{"name":"X"}]}`)
	outs := []engine.Tensor{{Name: "X", Type: engine.FP32, Shape: []int64{2, 3}, Data: fp32(1, 2, 3, 4, 5, 6)}}
	dst := make([]byte, 0, 4096)

	if n := testing.AllocsPerRun(100, func() {
		if err := r.Decode(m, body, -1); err != nil {
			t.Fatal(err)
		}

		if _, _, err := openinference.AppendResponse(dst, &r, m, outs); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
