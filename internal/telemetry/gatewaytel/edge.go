// Package gatewaytel turns what the gateway's packages announce into Prometheus metrics.
//
// Handles are looked up once and kept: a request costs a few atomic adds. Label values come from
// configuration and closed sets alone, and the number of services and models is capped, so that no client can
// make series.
package gatewaytel

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/internal/fault"
)

const (
	// maxServices is how many services have series of their own; later ones share "_other".
	maxServices = 2000
	maxModels   = 50 // of one service
	other       = "_other"
	none        = "_none" // a request that reached no service
)

// Edge returns hooks that feed reg with the metrics of the doors, and those that take the series
// of services and models away again.
func Edge(reg prometheus.Registerer) (edge.Hooks, plan.ServiceHooks) {
	m, s := newEdgeMetrics(reg), newSocketMetrics(reg)
	m.sockets = s

	return edge.Hooks{
		Started: func(d edge.Door) { m.inflight[d].Inc() },
		Ended:   m.ended,
		// The time that a WebSocket lives is no time to an answer: only the handshake counts among requests.
		SocketOpened: func(d edge.Door, r *gateway.Record) {
			m.ended(d, r)
			s.open[d].Inc()
			s.opened[d].Inc()
		},
		SocketClosed: func(d edge.Door, r *gateway.Record) { s.ended(d, r); m.socketCode(r) },
		Rejected:     m.rejected,
		Opened:       func(d edge.Door) { m.open[d].Inc(); m.opened[d].Inc() },
		Closed:       func(d edge.Door, age time.Duration) { m.open[d].Dec(); m.age.Observe(age.Seconds()) },
		Refused:      func(d edge.Door, why edge.Refusal) { m.refused[d][why].Inc() },
		LogDropped:   m.dropped.Inc,
		Draining:     m.drain,
		Panicked:     m.panics.Inc,
	}, plan.ServiceHooks{Added: m.added, Removed: m.removed}
}

type edgeMetrics struct {
	requests *prometheus.CounterVec
	models   *prometheus.CounterVec
	duration *prometheus.HistogramVec
	stage    [numStages]prometheus.Observer
	bytesIn  prometheus.Counter
	bytesOut prometheus.Counter

	rejects    *prometheus.CounterVec
	rejectedBy [edge.NumDoors][]atomic.Pointer[prometheus.Counter] // by fault code

	inflight [edge.NumDoors]prometheus.Gauge
	open     [edge.NumDoors]prometheus.Gauge
	opened   [edge.NumDoors]prometheus.Counter
	refused  [edge.NumDoors][edge.NumRefusals]prometheus.Counter
	age      prometheus.Histogram

	dropped, panics, cut    prometheus.Counter
	draining, drainInflight prometheus.Gauge

	sockets *socketMetrics

	services sync.Map   // id -> *serviceMetrics
	mu       sync.Mutex // guards making and removing series, and what follows
	known    int
	late     lately
}

// serviceMetrics are the handles of one service.
type serviceMetrics struct {
	label    string
	duration prometheus.Observer
	counts   [gateway.NumOutcomes][numClasses]atomic.Pointer[prometheus.Counter]
	models   sync.Map // name -> prometheus.Counter; one without a series for a model that is gone
	known    int      // models with a series; guarded by mu of edgeMetrics
	gone     bool     // guarded by mu of edgeMetrics
	// goneModels are those whose counter has no series, the oldest first; guarded by mu of edgeMetrics.
	goneModels []string
}

const numClasses = 6

//nolint:gochecknoglobals // a constant table
var classes = [numClasses]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

const (
	stageVerified = iota
	stageAdmitted
	stagePicked
	stageFirstByte
	numStages
)

func newEdgeMetrics(reg prometheus.Registerer) *edgeMetrics {
	m := &edgeMetrics{
		requests: counters("sluice_requests_total", "Requests by service, outcome and status class.", "service", "outcome", "code"),
		models:   counters("sluice_model_requests_total", "Requests that reached a model version.", "service", "model"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_request_duration_seconds", Help: "Time from the first byte of a request to the end of its answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 40},
		}, []string{"service"}),
		bytesIn:  counter("sluice_request_body_bytes_total", "Bytes of request bodies."),
		bytesOut: counter("sluice_response_bytes_total", "Bytes sent to clients."),
		rejects:  counters("sluice_edge_rejected_total", "Requests that the request guard turned away.", "door", "reason"),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sluice_edge_connection_age_seconds", Help: "How long connections lived.",
			Buckets: []float64{.01, .1, 1, 10, 60, 600, 3600, 7200},
		}),
		dropped:       counter("sluice_access_log_dropped_total", "Access log lines that found the queue full."),
		panics:        counter("sluice_edge_panics_total", "Panics that became the 500 of one request."),
		cut:           counter("sluice_drain_forced_total", "Requests that a drain had to cut."),
		draining:      gauge("sluice_draining", "1 while the doors drain."),
		drainInflight: gauge("sluice_drain_inflight", "Requests that a drain still waits for."),
	}

	stages := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "sluice_request_stage_seconds", Help: "Time from the start of a request until a stage was reached.",
		Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .5, 1, 5, 40},
	}, []string{"stage"})

	for i, name := range [numStages]string{"verified", "admitted", "picked", "first_byte"} {
		m.stage[i] = stages.WithLabelValues(name)
	}

	reg.MustRegister(m.requests, m.models, m.duration, m.bytesIn, m.bytesOut, m.rejects, m.age, m.dropped, m.panics, m.cut,
		m.draining, m.drainInflight, stages)
	m.doors(reg)

	return m
}

// doors makes the handles that are known beforehand.
func (m *edgeMetrics) doors(reg prometheus.Registerer) {
	inflight := gauges("sluice_requests_in_flight", "Requests let in and not answered yet.", "door")
	open := gauges("sluice_edge_connections", "Open connections.", "door")
	opened := counters("sluice_edge_connections_total", "Connections that were opened.", "door")
	refused := counters("sluice_edge_connections_refused_total", "Connections that were turned away.", "door", "reason")

	reg.MustRegister(inflight, open, opened, refused)

	for d := range edge.NumDoors {
		m.inflight[d] = inflight.WithLabelValues(d.String())
		m.open[d] = open.WithLabelValues(d.String())
		m.opened[d] = opened.WithLabelValues(d.String())
		m.rejectedBy[d] = make([]atomic.Pointer[prometheus.Counter], fault.Count())

		for why := range edge.NumRefusals {
			m.refused[d][why] = refused.WithLabelValues(d.String(), why.String())
		}
	}
}

func (m *edgeMetrics) ended(d edge.Door, r *gateway.Record) {
	m.inflight[d].Dec()
	m.bytesIn.Add(float64(r.BytesIn))
	m.bytesOut.Add(float64(r.BytesOut))

	// An id that nobody deployed is the client's word and makes no series.
	id := r.ServiceID
	if r.Outcome == gateway.RejectedNotFound {
		id = none
	}

	s := m.service(id)
	s.duration.Observe(r.Total.Seconds())
	m.count(s, r.Outcome, r.Status)

	if r.Model != "" {
		m.model(s, r.Model).Inc()
	}

	for i, t := range [numStages]time.Duration{r.Verified, r.Admitted, r.Picked, r.FirstByte} {
		if t > 0 {
			m.stage[i].Observe(t.Seconds())
		}
	}
}

// service finds or makes the handles of a service.
func (m *edgeMetrics) service(id string) *serviceMetrics {
	if id == "" {
		id = none
	}

	if s, ok := m.services.Load(id); ok {
		return s.(*serviceMetrics) //nolint:forcetypeassert,errcheck // nothing else is stored
	}

	m.mu.Lock()
	defer m.mu.Unlock()

	if m.late.has(id) || m.known >= maxServices {
		id = other
	}

	if s, ok := m.services.Load(id); ok {
		return s.(*serviceMetrics) //nolint:forcetypeassert,errcheck // nothing else is stored
	}

	m.known++

	s := &serviceMetrics{label: id, duration: m.duration.WithLabelValues(id)}
	m.services.Store(id, s)

	return s
}

func (m *edgeMetrics) count(s *serviceMetrics, o gateway.Outcome, status int) {
	o = min(o, gateway.NumOutcomes-1)

	class := status / 100
	if class < 0 || class >= numClasses {
		class = 0
	}

	cached(&s.counts[o][class], func() prometheus.Counter {
		m.mu.Lock()
		defer m.mu.Unlock()

		return m.requests.WithLabelValues(s.labelNow(), o.String(), classes[class])
	}).Inc()
}

// cached returns the handle, made on first use. Two makers get the same one.
func cached(p *atomic.Pointer[prometheus.Counter], create func() prometheus.Counter) prometheus.Counter {
	if c := p.Load(); c != nil {
		return *c
	}

	c := create()
	p.Store(&c)

	return c
}

func (m *edgeMetrics) model(s *serviceMetrics, name string) prometheus.Counter {
	if c, ok := s.models.Load(name); ok {
		return c.(prometheus.Counter) //nolint:forcetypeassert,errcheck // nothing else is stored
	}

	m.mu.Lock()
	defer m.mu.Unlock()

	if c, ok := s.models.Load(name); ok {
		return c.(prometheus.Counter) //nolint:forcetypeassert,errcheck // nothing else is stored
	}

	if s.gone || s.known >= maxModels {
		return m.models.WithLabelValues(s.labelNow(), other)
	}

	s.known++

	c := m.models.WithLabelValues(s.label, name)
	s.models.Store(name, c)

	return c
}

func (m *edgeMetrics) rejected(d edge.Door, code fault.Code) {
	if int(code) >= len(m.rejectedBy[d]) {
		code = fault.Internal
	}

	cached(&m.rejectedBy[d][code], func() prometheus.Counter {
		return m.rejects.WithLabelValues(d.String(), reason(code))
	}).Inc()
}

// reason is a word for what the guard found.
func reason(code fault.Code) string {
	switch code { //nolint:exhaustive // the guard has no others; a new one is told by its status
	case fault.BadRequest:
		return "malformed"
	case fault.URITooLarge:
		return "request_line_too_long"
	case fault.HeadersTooLarge:
		return "headers_too_large"
	case fault.MethodNotAllowed:
		return "method"
	case fault.NotImplemented:
		return "not_implemented"
	case fault.VersionNotServed:
		return "version"
	case fault.ExpectationFailed:
		return "expectation"
	case fault.RequestTimeout:
		return "timeout"
	default:
		return strconv.Itoa(code.Status())
	}
}

func (m *edgeMetrics) drain(on bool, inflight, cut int) {
	m.drainInflight.Set(float64(inflight))
	m.cut.Add(float64(cut))
	m.draining.Set(map[bool]float64{true: 1, false: 0}[on])
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}
