package limit_test

import (
	"fmt"
	"testing"

	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/spec"
)

// everything is every bound there is, none of which refuses.
func everything() limit.Config {
	r := limit.Rate{PerSecond: 1e9}

	return limit.Config{Service: r, Principal: r, App: r, Project: r, Global: r, Concurrency: 1000}
}

// BenchmarkAdmit is one request's admission, with none, some and all of the bounds.
func BenchmarkAdmit(b *testing.B) {
	noApp := everything()
	noApp.App = limit.Rate{}

	for _, c := range []struct {
		name string
		cfg  limit.Config
	}{
		{"unlimited", limit.Config{}},
		{"service", limit.Config{Service: limit.Rate{PerSecond: 1e9}}},
		{"four buckets and slots", noApp},
		{"all", everything()},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := newLocal(b, c.cfg)
			s := l.Service("s", "p", spec.Limits{})
			who := limit.Who{Principal: "user:0123456789abcdef0123456789abcdef", App: "0123456789abcdef"}
			b.ReportAllocs()

			var t limit.Ticket

			for b.Loop() {
				if err := l.Admit(b.Context(), s, who, &t); err != nil {
					b.Fatal(err)
				}

				t.Release()
			}
		})
	}
}

// BenchmarkAdmitCrowded is the same beside 100,000 other callers and 10,000 services: with
// one caller all the time, and with another caller and service each time, whose buckets have
// long left the processor's cache.
func BenchmarkAdmitCrowded(b *testing.B) {
	const callers, services = 100_000, 10_000

	l := newLocal(b, everything())
	who := make([]limit.Who, callers)
	in := make([]*limit.Service, services)

	for i := range in {
		in[i] = l.Service(fmt.Sprintf("service-%d", i), fmt.Sprintf("project-%d", i%100), spec.Limits{})
	}

	var t limit.Ticket

	for i := range who {
		who[i] = limit.Who{Principal: fmt.Sprintf("user:0123456789abcdef0123456789%06d", i), App: fmt.Sprintf("app%06d", i)}
		if err := l.Admit(b.Context(), in[i%services], who[i], &t); err != nil {
			b.Fatal(err)
		}

		t.Release()
	}

	for name, step := range map[string]int{"one caller": 0, "another caller each time": 7919} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()

			i := 0

			for b.Loop() {
				i = (i + step) % callers
				if err := l.Admit(b.Context(), in[i%services], who[i], &t); err != nil {
					b.Fatal(err)
				}

				t.Release()
			}
		})
	}
}
