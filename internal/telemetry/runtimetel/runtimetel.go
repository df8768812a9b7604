// Package runtimetel turns what the worker's packages announce into Prometheus metrics, under the
// names that dashboards for Triton use (nv_inference_*), with histograms beside the counters.
//
// Series exist per model and version, which come from the repository and never from clients.
// Handles are looked up once per loaded version: a request costs a few atomic adds.
package runtimetel

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

// Reasons of nv_inference_request_failure, as Triton names them.
const (
	rejected  = "REJECTED"
	cancelled = "CANCELED"
	backend   = "BACKEND"
	otherwise = "OTHER"
)

// Metrics are the series of one worker.
type Metrics struct {
	success, failure, rows, runs *prometheus.CounterVec
	pending                      *prometheus.GaugeVec
	sums                         [numPhases]*prometheus.CounterVec
	histograms                   [numPhases]*prometheus.HistogramVec
	batches                      *prometheus.HistogramVec
	state                        *prometheus.GaugeVec
	load                         *prometheus.HistogramVec
	served                       *prometheus.CounterVec
	took                         *prometheus.HistogramVec
	panics                       prometheus.Counter
	mu                           sync.Mutex // guards last
	last                         map[[2]string]repo.State
	requests                     [len(protocols)][maxStatus]atomic.Pointer[prometheus.Counter]
	durations                    [len(protocols)]prometheus.Observer
}

// phases of a request.
const (
	whole = iota
	queue
	input
	compute
	output
	numPhases
)

//nolint:gochecknoglobals // constant tables
var (
	phaseNames = [numPhases]string{"request", "queue", "compute_input", "compute_infer", "compute_output"}
	protocols  = [...]string{"v2", "platform", "other"}
)

const maxStatus = 600

// New registers the metrics.
func New(reg prometheus.Registerer) *Metrics {
	labels := []string{"model", "version"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		reg.MustRegister(v)

		return v
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		reg.MustRegister(v)

		return v
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		reg.MustRegister(v)

		return v
	}

	m := &Metrics{
		success: counter("nv_inference_request_success", "Successful inference requests.", labels...),
		failure: counter("nv_inference_request_failure", "Failed inference requests, by reason.", "model", "version", "reason"),
		rows:    counter("nv_inference_count", "Inferences, that is rows of successful requests.", labels...),
		runs:    counter("nv_inference_exec_count", "Runs of the model; nv_inference_count divided by it is the mean batch.", labels...),
		pending: gauge("nv_inference_pending_request_count", "Rows that wait for an executor.", labels...),
		batches: histogram("sluice_batch_rows", "Rows of each batch, by why it was cut.", prometheus.ExponentialBuckets(1, 2, 11), "model", "version", "reason"),
		state:   gauge("sluice_model_state", "1 for the state a version is in.", "model", "version", "state"),
		load:    histogram("sluice_model_load_seconds", "Time of successful loads.", prometheus.ExponentialBuckets(0.01, 3, 10), labels...),
		served:  counter("sluice_worker_requests_total", "Requests to the worker, by protocol and status.", "protocol", "status"),
		took:    histogram("sluice_worker_request_duration_us", "Time inside the worker, by protocol.", microseconds(), "protocol"),
		panics:  prometheus.NewCounter(prometheus.CounterOpts{Name: "sluice_worker_panics_total", Help: "Requests answered with 500 because their handler panicked."}),
		last:    map[[2]string]repo.State{},
	}

	for p, name := range phaseNames {
		m.sums[p] = counter("nv_inference_"+name+"_duration_us", "Cumulative "+name+" time of successful requests in microseconds.", labels...)
		m.histograms[p] = histogram("nv_inference_"+name+"_duration_histogram_us", "Distribution of "+name+" time of successful requests in microseconds.", microseconds(), labels...)
	}

	for p, name := range protocols {
		m.durations[p] = m.took.WithLabelValues(name)
	}

	reg.MustRegister(m.panics)

	return m
}

// microseconds are buckets from 10 µs to 60 s.
func microseconds() []float64 {
	return []float64{
		10, 25, 50, 100, 250, 500, 1e3, 2.5e3, 5e3, 1e4, 2.5e4, 5e4, 1e5, 2.5e5, 5e5, 1e6, 2.5e6, 5e6, 1e7, 6e7,
	}
}

// Repo returns hooks that feed the metrics of models.
func (m *Metrics) Repo() repo.Hooks {
	return repo.Hooks{
		State:     m.changed,
		Forgotten: m.forgotten,
		Loaded: func(name, version string, d time.Duration) {
			m.load.WithLabelValues(name, version).Observe(d.Seconds())
		},
		Batch: m.batch,
	}
}

func (m *Metrics) changed(s repo.Status) {
	m.mu.Lock()
	defer m.mu.Unlock()

	key := [2]string{s.Name, s.Version}
	if old, ok := m.last[key]; ok {
		m.state.DeleteLabelValues(s.Name, s.Version, string(old))
	}

	m.last[key] = s.State
	m.state.WithLabelValues(s.Name, s.Version, string(s.State)).Set(1)
}

// forgotten drops the series of a version that is gone for good.
func (m *Metrics) forgotten(name, version string) {
	m.mu.Lock()
	defer m.mu.Unlock()

	delete(m.last, [2]string{name, version})

	labels := prometheus.Labels{"model": name, "version": version}

	for _, v := range []interface {
		DeletePartialMatch(labels prometheus.Labels) int
	}{m.success, m.failure, m.rows, m.runs, m.pending, m.batches, m.state, m.load} {
		v.DeletePartialMatch(labels)
	}

	for p := range numPhases {
		m.sums[p].DeletePartialMatch(labels)
		m.histograms[p].DeletePartialMatch(labels)
	}
}

// batch makes the hooks of one version, with all its handles.
func (m *Metrics) batch(name, version string) batch.Hooks {
	var (
		success = m.success.WithLabelValues(name, version)
		rows    = m.rows.WithLabelValues(name, version)
		runs    = m.runs.WithLabelValues(name, version)
		pending = m.pending.WithLabelValues(name, version)
		sums    [numPhases]prometheus.Counter
		spread  [numPhases]prometheus.Observer
	)

	failures := map[string]prometheus.Counter{}
	for _, reason := range []string{rejected, cancelled, backend, otherwise} {
		failures[reason] = m.failure.WithLabelValues(name, version, reason)
	}

	cuts := map[string]prometheus.Observer{}
	for _, reason := range []string{
		batch.ReasonIdle, batch.ReasonFull, batch.ReasonPreferred, batch.ReasonDelay, batch.ReasonShape, batch.ReasonSingle,
	} {
		cuts[reason] = m.batches.WithLabelValues(name, version, reason)
	}

	for p := range numPhases {
		sums[p] = m.sums[p].WithLabelValues(name, version)
		spread[p] = m.histograms[p].WithLabelValues(name, version)
	}

	return batch.Hooks{
		Pending: func(n int) { pending.Set(float64(n)) },
		Rejected: func(reason string, _ int) {
			if reason == batch.RejectCancelled {
				failures[cancelled].Inc()
			} else {
				failures[rejected].Inc()
			}
		},
		Cut: func(reason string, _, n int) {
			runs.Inc()

			if o := cuts[reason]; o != nil {
				o.Observe(float64(n))
			}
		},
		Finished: func(i batch.Info, err error) {
			if err != nil {
				failures[reasonOf(err)].Inc()

				return
			}

			success.Inc()
			rows.Add(float64(i.Rows))

			took := [numPhases]time.Duration{
				whole: i.Queue + i.CopyIn + i.Run + i.CopyOut, queue: i.Queue, input: i.CopyIn, compute: i.Run, output: i.CopyOut,
			}
			for p, d := range took {
				us := float64(max(d, 0).Nanoseconds()) / 1e3 // a counter panics when it is told to go back
				sums[p].Add(us)
				spread[p].Observe(us)
			}
		},
	}
}

func reasonOf(err error) string {
	var f *fault.Error

	switch {
	case errors.Is(err, context.Canceled):
		return cancelled
	case errors.Is(err, context.DeadlineExceeded):
		return otherwise
	case errors.As(err, &f) && f.Code == fault.ClientGone:
		return cancelled
	case errors.As(err, &f) && f.Code == fault.BackendTimeout:
		return otherwise
	default:
		return backend
	}
}

// Serve returns hooks that feed the metrics of the worker's doors.
func (m *Metrics) Serve() serve.Hooks {
	return serve.Hooks{Served: m.request, Panicked: m.panics.Inc}
}

func (m *Metrics) request(protocol string, status int, took time.Duration) {
	p := len(protocols) - 1

	for i, name := range protocols {
		if name == protocol {
			p = i
		}
	}

	m.durations[p].Observe(float64(took.Nanoseconds()) / 1e3)

	if status < 0 || status >= maxStatus {
		status = 0
	}

	slot := &m.requests[p][status]

	c := slot.Load()
	if c == nil {
		handle := m.served.WithLabelValues(protocols[p], strconv.Itoa(status))
		c = &handle
		slot.Store(c)
	}

	(*c).Inc()
}
