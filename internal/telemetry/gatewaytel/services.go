package gatewaytel

import (
	"github.com/prometheus/client_golang/prometheus"
)

// maxLate bounds how many services that are gone are remembered.
const maxLate = 4096

// lately remembers services that are gone, so that requests which end after their service make no
// series again. It forgets the oldest.
type lately struct {
	ids  map[string]int // where in ring
	ring []string
	next int
}

func (l *lately) has(id string) bool {
	_, ok := l.ids[id]

	return ok
}

func (l *lately) add(id string) {
	if l.ids == nil {
		l.ids, l.ring = make(map[string]int), make([]string, maxLate)
	}

	l.drop(l.ring[l.next])
	l.ring[l.next], l.ids[id] = id, l.next
	l.next = (l.next + 1) % maxLate
}

func (l *lately) drop(id string) {
	if i, ok := l.ids[id]; ok {
		l.ring[i] = ""
		delete(l.ids, id)
	}
}

// labelNow is what a new series of s is called; the caller holds mu of edgeMetrics.
func (s *serviceMetrics) labelNow() string {
	if s.gone {
		return other
	}

	return s.label
}

// added lets a service or model that was gone have series again.
func (m *edgeMetrics) added(service, model string) {
	m.mu.Lock()
	defer m.mu.Unlock()

	if model == "" {
		m.late.drop(service)

		return
	}

	if s, ok := m.services.Load(service); ok {
		s.(*serviceMetrics).revive(model) //nolint:forcetypeassert,errcheck // nothing else is stored
	}
}

// removed takes the series of a service, or of one of its models, away.
func (m *edgeMetrics) removed(service, model string) {
	m.mu.Lock()
	defer m.mu.Unlock()

	v, ok := m.services.Load(service)

	if model != "" {
		if ok {
			m.removeModel(v.(*serviceMetrics), model) //nolint:forcetypeassert,errcheck // nothing else is stored
		}

		return
	}

	m.late.drop(service)
	m.late.add(service)

	if !ok {
		return
	}

	v.(*serviceMetrics).gone = true //nolint:forcetypeassert,errcheck // nothing else is stored
	m.known--

	m.services.Delete(service)

	labels := prometheus.Labels{"service": service}
	m.requests.DeletePartialMatch(labels)
	m.models.DeletePartialMatch(labels)
	m.duration.DeletePartialMatch(labels)
	m.sockets.forget(service)
}

// maxGoneModels bounds how many models that are gone a service remembers.
const maxGoneModels = 1000

// removeModel leaves a counter without a series in the model's place, for requests that end late.
func (m *edgeMetrics) removeModel(s *serviceMetrics, model string) {
	if !m.models.DeleteLabelValues(s.label, model) {
		return
	}

	s.known--
	s.models.Store(model, counter("gone", "Counts requests of a model that is gone, for nobody."))
	s.goneModels = append(s.goneModels, model)

	if len(s.goneModels) > maxGoneModels {
		s.revive(s.goneModels[0])
	}
}

// revive forgets that a model is gone.
func (s *serviceMetrics) revive(model string) {
	for i, name := range s.goneModels {
		if name == model {
			s.models.Delete(model)
			s.goneModels = append(s.goneModels[:i], s.goneModels[i+1:]...)

			return
		}
	}
}
