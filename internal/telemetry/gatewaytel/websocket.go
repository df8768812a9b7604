package gatewaytel

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge"
)

// socketMetrics are those of WebSockets.
type socketMetrics struct {
	open     [edge.NumDoors]prometheus.Gauge
	opened   [edge.NumDoors]prometheus.Counter
	closed   *prometheus.CounterVec
	duration prometheus.Histogram
	messages [2]prometheus.Counter
	bytes    [2]prometheus.Counter

	codes sync.Map // service and code -> prometheus.Counter
}

// socketKey names a counter of ended WebSockets.
type socketKey struct {
	service string
	code    uint16
}

func newSocketMetrics(reg prometheus.Registerer) *socketMetrics {
	m := &socketMetrics{
		closed: counters("sluice_websocket_closed_total", "WebSockets that ended, by service and close code (1006: without one).", "service", "code"),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sluice_websocket_duration_seconds", Help: "How long WebSockets lived.",
			Buckets: []float64{.1, 1, 10, 60, 300, 1800, 3600, 14400, 86400},
		}),
	}

	open := gauges("sluice_websocket_connections", "Open WebSockets.", "door")
	opened := counters("sluice_websocket_connections_total", "WebSockets that were opened.", "door")
	messages := counters("sluice_websocket_messages_total", "Messages of WebSockets that have ended.", "direction")
	bytes := counters("sluice_websocket_bytes_total", "Bytes of WebSockets that have ended, heads of frames included.", "direction")

	reg.MustRegister(open, opened, messages, bytes, m.closed, m.duration)

	for d := range edge.NumDoors {
		m.open[d], m.opened[d] = open.WithLabelValues(d.String()), opened.WithLabelValues(d.String())
	}

	for i, direction := range [2]string{"in", "out"} {
		m.messages[i], m.bytes[i] = messages.WithLabelValues(direction), bytes.WithLabelValues(direction)
	}

	return m
}

func (m *socketMetrics) ended(d edge.Door, r *gateway.Record) {
	m.open[d].Dec()
	m.duration.Observe(r.Total.Seconds())
	m.messages[0].Add(float64(r.MessagesIn))
	m.messages[1].Add(float64(r.MessagesOut))
	m.bytes[0].Add(float64(r.BytesIn))
	m.bytes[1].Add(float64(r.BytesOut))
}

// socketCode counts how a WebSocket ended.
func (m *edgeMetrics) socketCode(r *gateway.Record) {
	s := m.service(r.ServiceID)

	key := socketKey{s.label, r.CloseCode}
	if key.code >= 3000 { // the client's own words: one series for each thousand
		key.code -= key.code % 1000
	}

	if c, ok := m.sockets.codes.Load(key); ok {
		c.(prometheus.Counter).Inc() //nolint:forcetypeassert,errcheck // nothing else is stored

		return
	}

	m.mu.Lock()
	defer m.mu.Unlock()

	key.service = s.labelNow()
	c := m.sockets.closed.WithLabelValues(key.service, strconv.Itoa(int(key.code)))
	m.sockets.codes.Store(key, c)
	c.Inc()
}

// forget drops the series of a service.
func (m *socketMetrics) forget(service string) {
	m.closed.DeletePartialMatch(prometheus.Labels{"service": service})
	m.codes.Range(func(key, _ any) bool {
		if k, ok := key.(socketKey); ok && k.service == service {
			m.codes.Delete(key)
		}

		return true
	})
}
