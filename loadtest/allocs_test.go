//go:build !race

package loadtest_test

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/loadtest/wire"
)

// constantServer answers each read with the same bytes, without allocation.
func constantServer(tb testing.TB) string {
	tb.Helper()

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(func() { ln.Close() })

	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}

			go func() {
				defer nc.Close()

				buf := make([]byte, 4096)

				for {
					if _, err := nc.Read(buf); err != nil {
						return
					}

					if _, err := nc.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()

	return ln.Addr().String()
}

// constant is a source that renders nothing.
type constant []byte

func (c constant) Append([]byte, int64) ([]byte, int) { return c, 0 }

//nolint:paralleltest // counts what the whole process allocates
func TestRequestsOnTheirWayDoNotAllocate(t *testing.T) {
	address := constantServer(t)

	for _, rate := range []float64{0, 20_000} {
		mallocs := func(requests int64) uint64 {
			p := plan(address)
			p.NewSource = func(int) wire.Source { return constant(get) }
			p.Requests, p.Rate, p.Duration, p.Concurrency = requests, rate, time.Minute, 8

			var before, after runtime.MemStats

			runtime.ReadMemStats(&before)

			if _, err := loadtest.Run(t.Context(), p); err != nil {
				t.Fatal(err)
			}

			runtime.ReadMemStats(&after)

			return after.Mallocs - before.Mallocs
		}

		const few, many = 1000, 41_000

		a, b := mallocs(few), mallocs(many)
		// What a run itself allocates does not depend on its requests; the runtime allocates a little at times.
		if extra := float64(b) - float64(a); extra > 0.02*(many-few) {
			t.Errorf("rate %v: %.0f allocations for %d more requests", rate, extra, many-few)
		}
	}
}

func BenchmarkClosedLoop(b *testing.B) {
	p := plan(constantServer(b))
	p.NewSource = func(int) wire.Source { return constant(get) }
	p.Requests, p.Duration, p.Concurrency = int64(b.N), time.Hour, 32

	b.ReportAllocs()

	res, err := loadtest.Run(b.Context(), p)
	if err != nil {
		b.Fatal(err)
	}

	b.ReportMetric(res.Rate, "requests/s")
}
