//go:build !race

package request_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/loadtest/request"
	"github.com/sluice-gateway/sluice/spec"
)

func items(tb testing.TB) map[string]request.Item {
	tb.Helper()

	signer, err := sign.Signer{AccessKey: "AK", Secret: spec.NewSecret("SK")}.Prepare()
	if err != nil {
		tb.Fatal(err)
	}

	plain := request.Item{Method: "POST", Target: "/v1/infers/x", Host: "h", Body: []byte(`{"a":[1,2,3]}`)}

	moving := plain
	moving.Body = []byte(`{"seq":{{.Seq}},"r":{{.Rand 9}},"f":{{.Float}},"id":"{{.UUID}}","t":{{.Now}}}`)

	signed := plain
	signed.Signer = signer

	return map[string]request.Item{"static": plain, "template": moving, "signed": signed}
}

//nolint:paralleltest // AllocsPerRun counts what all goroutines allocate
func TestRequestsDoNotAllocate(t *testing.T) {
	for name, item := range items(t) {
		s := mix(t, item).Source(0, 1)
		buf := make([]byte, 0, 4096)

		if n := testing.AllocsPerRun(500, func() { s.Append(buf, 0) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for name, item := range items(b) {
		b.Run(name, func(b *testing.B) {
			m, err := request.NewMix([]request.Item{item})
			if err != nil {
				b.Fatal(err)
			}

			s := m.Source(0, 1)
			buf := make([]byte, 0, 4096)

			b.ReportAllocs()

			for b.Loop() {
				s.Append(buf, 0)
			}
		})
	}
}
