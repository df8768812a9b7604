package pool

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/spec"
)

// Backend is what a forwarder keeps for an instance: its connections.
type Backend interface {
	// Close closes what is idle and keeps nothing alive from now on. Requests under way go on.
	Close() error
}

// Endpoint is the live state of one instance. Its exported fields do not change.
type Endpoint struct {
	ID       string
	Instance spec.Instance
	Backend  Backend

	pool    *Pool
	idBytes []byte
	weight  float64
	seed    uint64 // hash of the id, for rendezvous
	near    bool
	since   int64 // when slow start began; 0 means at full share

	draining atomic.Bool

	_ [40]byte // what follows changes with every request: keep it off the line above

	inflight atomic.Int64
	long     atomic.Int64  // leases that were made long
	ewma     atomic.Uint64 // float64 bits, nanoseconds; 0 without a sample
	sampled  atomic.Int64  // when ewma last changed

	consecutive atomic.Int32 // failures in a row
	connects    atomic.Int32 // failed connects in a row
	ejected     atomic.Int64 // until when; 0 if not
	ejections   atomic.Int32 // how often in a row
	windowAll   atomic.Int64 // requests and failures since the last look
	windowBad   atomic.Int64

	breaker breaker
}

// IDBytes is ID for headers.
func (e *Endpoint) IDBytes() []byte { return e.idBytes }

// InFlight is the number of leases that are out.
func (e *Endpoint) InFlight() int64 { return e.inflight.Load() }

// Long is the number of leases that were made long.
func (e *Endpoint) Long() int64 { return e.long.Load() }

// Latency is the moving average of the time to the first byte, 0 before the first answer.
func (e *Endpoint) Latency() time.Duration {
	return time.Duration(math.Float64frombits(e.ewma.Load()))
}

// Leaving reports whether Drain was called.
func (e *Endpoint) Leaving() bool { return e.draining.Load() }

// Drain takes the endpoint out of the choice: its worker said that it is going away.
func (e *Endpoint) Drain() {
	e.draining.Store(true)
	e.pool.whole.Store(false)
}

const latencyTau = float64(5 * time.Second)

// observe moves the average towards a sample. A slower sample counts at once, a faster one
// with the weight of the time that has passed, so that trouble shows fast and fades slowly.
func (e *Endpoint) observe(latency time.Duration, now int64) {
	sample := float64(max(latency, 1))
	last := e.sampled.Swap(now)
	old := math.Float64frombits(e.ewma.Load())

	if old == 0 {
		e.ewma.Store(math.Float64bits(sample))

		return
	}

	keep := 1 - min(max(float64(now-last), 0)/latencyTau, 1)
	if sample > old {
		keep = 0.5 // two bad samples are a trend
	} else {
		keep = min(keep, 0.95)
	}
	// A lost update between two samples of the same moment does no harm.
	e.ewma.Store(math.Float64bits(old*keep + sample*(1-keep)))
}

// cost is in-flight times latency over the share that the endpoint may have now.
func (e *Endpoint) cost(now int64, slow float64) float64 {
	latency := math.Float64frombits(e.ewma.Load())
	if latency > 0 {
		// A verdict that nobody renews fades, so that a slow instance is tried again.
		if age := float64(now - e.sampled.Load()); age > latencyTau {
			latency *= latencyTau / age
		}
	} else {
		latency = 1e6
	}

	return float64(e.inflight.Load()+1) * latency / (e.weight * e.share(now, slow))
}

const minShare = 0.1

// share is 1, or less while the endpoint starts slowly.
func (e *Endpoint) share(now int64, slow float64) float64 {
	if e.since == 0 || slow <= 0 {
		return 1
	}

	return min(max(float64(now-e.since)/slow, minShare), 1)
}

// healthy reports whether neither ejection nor breaker keep the endpoint out.
func (e *Endpoint) healthy(now int64) bool {
	return e.ejected.Load() <= now && e.breaker.passes(now)
}
