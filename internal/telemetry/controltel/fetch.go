package controltel

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/control/registry"
)

// Fetch returns hooks that count fetches of model packages.
func Fetch(reg prometheus.Registerer) registry.Hooks {
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_package_fetches_total", Help: "Fetches of model packages that ended.",
	}, []string{"result"})
	bytes := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_package_fetched_bytes_total", Help: "Bytes of model packages, counted when a fetch ends.",
	})
	took := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "sluice_package_fetch_seconds", Help: "Time of successful fetches of model packages.",
		Buckets: prometheus.ExponentialBuckets(.1, 4, 10), //nolint:mnd // from 0.1 s to 7 h
	})

	reg.MustRegister(ended, bytes, took)

	fetched, failed := ended.WithLabelValues("fetched"), ended.WithLabelValues("failed")

	return registry.Hooks{Fetched: func(n int64, d time.Duration, err error) {
		bytes.Add(float64(n))

		if err != nil {
			failed.Inc()

			return
		}

		fetched.Inc()
		took.Observe(d.Seconds())
	}}
}

// Fetching shows the fetches that go on; now is asked at each scrape.
func Fetching(reg prometheus.Registerer, now func() (fetches int, here, total int64)) {
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_package_fetches", Help: "Fetches of model packages that go on.",
		}, func() float64 { n, _, _ := now(); return float64(n) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_package_fetching_bytes", Help: "Bytes that are here of the packages that are being fetched.",
		}, func() float64 { _, here, _ := now(); return float64(here) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "sluice_package_fetching_total_bytes", Help: "Known size of the packages that are being fetched.",
		}, func() float64 { _, _, total := now(); return float64(total) }),
	)
}
