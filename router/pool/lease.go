package pool

import "time"

// Outcome says how the use of a lease ended, as far as the instance is to blame.
type Outcome uint8

// Outcomes of a lease.
const (
	// OK: the engine answered, also with 4xx.
	OK Outcome = iota
	// EngineError: the engine answered with a 5xx.
	EngineError
	// Unreachable: no connection could be made; nothing was sent.
	Unreachable
	// Broken: the connection broke or the answer was garbage.
	Broken
	// TimedOut: no answer within the deadline.
	TimedOut
	// Neutral: says nothing about the instance (client gone, overload, unusable request).
	Neutral
	// Draining: the worker said that it is going away and did not start the request.
	Draining
	numOutcomes
)

// transport is an error if the breaker counts o as a failure.
func (o Outcome) transport() error {
	if o == Unreachable || o == Broken || o == TimedOut {
		return errFailed
	}

	return nil
}

// failure reports whether ejection counts o as a failure.
func (o Outcome) failure() bool { return o == EngineError || o.transport() != nil }

// Lease is the right to send one request to an instance. The zero value holds none.
// Acquire fills it; Done gives it back, exactly once. A Lease must not be copied while held.
type Lease struct {
	pool     *Pool
	endpoint *Endpoint
	began    int64
	answered int64
	probe    func(error) // set while the breaker is half-open
	long     bool
}

// Held reports whether the lease is out.
func (l *Lease) Held() bool { return l.endpoint != nil }

// Endpoint is the chosen instance; nil if nothing is held.
func (l *Lease) Endpoint() *Endpoint { return l.endpoint }

// Answered marks the first byte of the answer, whose delay is the instance's latency. The
// breaker's probe reports now, because a stream may go on for hours.
func (l *Lease) Answered() {
	if l.answered != 0 || l.endpoint == nil {
		return
	}

	l.answered = l.pool.now()

	if l.probe != nil {
		l.probe(nil)
		l.probe = nil
	}
}

// Lengthen moves the lease to dst, for a connection that lasts. From now on it takes no place among the
// requests in flight, and what it said about the instance so far counts as a success.
func (l *Lease) Lengthen(dst *Lease) {
	e, p := l.endpoint, l.pool
	if e == nil {
		panic("BUG: lengthen a lease that is not held")
	}

	l.Answered()

	now := p.now()

	e.breaker.report(nil, now)
	e.observe(time.Duration(l.answered-l.began), now)
	e.long.Add(1)
	e.inflight.Add(-1)

	*dst = *l
	dst.long = true
	*l = Lease{}

	p.judge(e, OK, now)
	p.wake(1)
}

// Done gives the lease back. In builds with the race detector a second call panics;
// in others it does nothing.
func (l *Lease) Done(o Outcome) {
	e, p := l.endpoint, l.pool
	if e == nil {
		if doneTwicePanics {
			panic("BUG: lease given back twice or never held")
		}

		return
	}

	now := p.now()

	if l.long {
		e.long.Add(-1)
	} else {
		e.inflight.Add(-1)
	}

	if l.probe != nil {
		// A probe that says nothing opens the breaker again: it must not stay half-open.
		if o == OK || o == EngineError {
			l.probe(nil)
		} else {
			l.probe(errFailed)
		}
	} else if o != Neutral && o != Draining {
		e.breaker.report(o.transport(), now)
	}

	if o == OK && !l.long {
		end := now
		if l.answered != 0 {
			end = l.answered
		}

		e.observe(time.Duration(end-l.began), now)
	}

	if o == Draining {
		e.Drain()
	}

	*l = Lease{}

	p.judge(e, o, now)
	p.wake(1)
}
