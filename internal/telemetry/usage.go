package telemetry

import (
	"sync"
	"sync/atomic"
	"time"
)

// maxUsage bounds how many services are counted one by one.
const maxUsage = 20_000

// Usage counts predictions by service and model, for the management API. It is safe for
// concurrent use; counting takes no lock after a service and model were first seen.
type Usage struct {
	services sync.Map // id -> *serviceUsage
	count    atomic.Int64
	now      func() time.Time
}

// NewUsage returns an empty Usage.
func NewUsage() *Usage { return &Usage{now: time.Now} }

type serviceUsage struct {
	total, failed atomic.Int64
	minutes       [2]minute
	models        sync.Map // name/version -> *[2]atomic.Int64: total, failed
}

// minute counts the predictions of one minute.
type minute struct{ number, count atomic.Int64 }

// Count adds one prediction.
func (u *Usage) Count(service, model string, failed bool) { //nolint:revive // whether it failed is what is counted
	v, ok := u.services.Load(service)
	if !ok {
		if u.count.Add(1) > maxUsage {
			u.count.Add(-1)

			return
		}

		v, _ = u.services.LoadOrStore(service, new(serviceUsage))
	}

	s, _ := v.(*serviceUsage)
	s.total.Add(1)

	if failed {
		s.failed.Add(1)
	}

	n := u.now().Unix() / 60
	m := &s.minutes[n%2]

	if old := m.number.Load(); old != n && m.number.CompareAndSwap(old, n) {
		m.count.Store(0)
	}

	m.count.Add(1)

	if model != "" {
		s.countModel(model, failed)
	}
}

func (s *serviceUsage) countModel(model string, failed bool) { //nolint:revive // as above
	v, ok := s.models.Load(model)
	if !ok {
		v, _ = s.models.LoadOrStore(model, new([2]atomic.Int64))
	}

	c, _ := v.(*[2]atomic.Int64)
	c[0].Add(1)

	if failed {
		c[1].Add(1)
	}
}

// Forget drops what is known of a service that was deleted.
func (u *Usage) Forget(service string) {
	if _, ok := u.services.LoadAndDelete(service); ok {
		u.count.Add(-1)
	}
}

// UsageReport is the use of a service since the process started.
type UsageReport struct {
	Total, Failed int64
	// LastMinute is the number of predictions in the last full minute.
	LastMinute int64
	// Models by name/version: total and failed.
	Models map[string][2]int64
}

// Report tells the use of a service; zero if it was never called.
func (u *Usage) Report(service string) UsageReport {
	r := UsageReport{Models: map[string][2]int64{}}

	v, ok := u.services.Load(service)
	if !ok {
		return r
	}

	s, _ := v.(*serviceUsage)
	r.Total, r.Failed = s.total.Load(), s.failed.Load()

	last := u.now().Unix()/60 - 1
	if m := &s.minutes[last%2]; m.number.Load() == last {
		r.LastMinute = m.count.Load()
	}

	s.models.Range(func(k, v any) bool {
		name, _ := k.(string)
		c, _ := v.(*[2]atomic.Int64)
		r.Models[name] = [2]int64{c[0].Load(), c[1].Load()}

		return true
	})

	return r
}
