package measure

import (
	"bytes"
	"time"
)

// Failure classifies a request that got no usable answer from the transport.
type Failure uint8

// The failures of transport. The order is that of reports.
const (
	None          Failure = iota
	ConnectFailed         // refused, unreachable, name not found
	ConnectTimeout
	TLSFailed
	Timeout    // no complete answer in time
	Closed     // the peer closed the connection before the answer was complete
	Reset      // the peer reset the connection
	Malformed  // the answer is not what the protocol allows
	Unsent     // due, but the run was over before a connection was free
	StreamFail // the answer is a stream that ended in an error event
	Other
	numFailures
)

// String is the text of reports.
func (f Failure) String() string {
	return [numFailures]string{
		"", "connect refused", "connect timeout", "tls", "timeout", "connection closed", "connection reset",
		"malformed answer", "never sent", "error in stream", "other",
	}[f]
}

// Sample is one finished request. Moments are nanoseconds since the start of the run.
type Sample struct {
	Target    int   // index in the mix
	Intended  int64 // when it was meant to start: latency counts from here
	Started   int64 // when it was really written
	FirstByte int64 // 0 if there was none
	End       int64
	Waited    bool // no connection was free when it was due
	Status    int  // HTTP status, 0 if there was no answer
	Failure   Failure
	Body      []byte // of an answer that is not a success: its beginning
	Bytes     int64  // of the answer's body
}

// OK reports whether the request succeeded: an answer with 2xx, or 101 of a WebSocket.
func (s *Sample) OK() bool {
	return s.Failure == None && s.Status >= 200 && s.Status < 300 && s.Status != 0
}

// ErrorKey is what failed requests are counted by.
type ErrorKey struct {
	Status  int
	Code    string // error_code of the body
	Failure Failure
}

// Counts is what is counted of some requests.
type Counts struct {
	Requests, Failed, Bytes int64
	OK, Bad                 *Histogram // latency of successes and of failures
}

func newCounts() Counts { return Counts{OK: NewHistogram(), Bad: NewHistogram()} }

func (c *Counts) add(s *Sample, ok bool) { //nolint:revive // computed once for several counts
	c.Requests++
	c.Bytes += s.Bytes

	if ok {
		c.OK.Record(s.End - s.Intended)

		return
	}

	c.Failed++
	c.Bad.Record(s.End - s.Intended)
}

func (c *Counts) merge(from *Counts) {
	c.Requests += from.Requests
	c.Failed += from.Failed
	c.Bytes += from.Bytes
	c.OK.Merge(from.OK)
	c.Bad.Merge(from.Bad)
}

func (c *Counts) reset() {
	c.OK.Reset()
	c.Bad.Reset()
	*c = Counts{OK: c.OK, Bad: c.Bad}
}

// All is the latency of all requests, whatever became of them.
func (c *Counts) All() *Histogram {
	if c.Failed == 0 {
		return c.OK
	}

	all := c.OK.Clone()
	all.Merge(c.Bad)

	return all
}

// Tick is what one worker, or all of them, counted in one second.
type Tick struct {
	Worker, Second int
	Last           bool // the worker will send no more
	// Warm counts requests that were meant to start in the warm-up; the rest leaves them out.
	Warm int64
	// Within counts measured requests that ended before the measured time did: the base of the rate.
	Within    int64
	Total     Counts
	Targets   []Counts // only if there are several
	Schedule  *Histogram
	Wait      *Histogram
	FirstByte *Histogram
	Gap       *Histogram // between the events of a stream
	Errors    map[ErrorKey]int64
}

func newTick(targets int) *Tick {
	t := &Tick{
		Total: newCounts(), Schedule: NewHistogram(), Wait: NewHistogram(),
		FirstByte: NewHistogram(), Gap: NewHistogram(), Errors: make(map[ErrorKey]int64),
	}

	if targets > 1 {
		for range targets {
			t.Targets = append(t.Targets, newCounts())
		}
	}

	return t
}

func (t *Tick) merge(from *Tick) {
	t.Warm += from.Warm
	t.Within += from.Within
	t.Total.merge(&from.Total)

	for i := range from.Targets {
		t.Targets[i].merge(&from.Targets[i])
	}

	t.Schedule.Merge(from.Schedule)
	t.Wait.Merge(from.Wait)
	t.FirstByte.Merge(from.FirstByte)
	t.Gap.Merge(from.Gap)

	for k, n := range from.Errors {
		t.Errors[k] += n
	}
}

func (t *Tick) reset() {
	t.Warm, t.Within, t.Last = 0, 0, false
	t.Total.reset()

	for i := range t.Targets {
		t.Targets[i].reset()
	}

	t.Schedule.Reset()
	t.Wait.Reset()
	t.FirstByte.Reset()
	t.Gap.Reset()
	clear(t.Errors)
}

// Worker records for one goroutine.
type Worker struct {
	c      *Collector
	id     int
	tick   *Tick
	spare  chan *Tick
	second int
}

// Record counts a finished request.
func (w *Worker) Record(s *Sample) {
	w.Advance(s.End)

	t := w.tick

	if s.Intended < int64(w.c.cfg.Warmup) {
		t.Warm++

		return
	}

	ok := s.OK()
	t.Total.add(s, ok)

	if t.Targets != nil {
		t.Targets[s.Target].add(s, ok)
	}

	if s.End <= w.c.end.Load() {
		t.Within++
	}

	switch {
	case s.Failure == Unsent:
	case s.Waited:
		t.Wait.Record(s.Started - s.Intended)
	default:
		t.Schedule.Record(s.Started - s.Intended)
	}

	if s.FirstByte > 0 {
		t.FirstByte.Record(s.FirstByte - s.Intended)
	}

	if !ok {
		w.fail(s)
	}
}

// Gap counts the time between two events of a stream.
func (w *Worker) Gap(now, ns int64) {
	if now >= int64(w.c.cfg.Warmup) {
		w.tick.Gap.Record(ns)
	}
}

// fail counts an error. A code that is known already costs no allocation.
func (w *Worker) fail(s *Sample) {
	code := errorCode(s.Body)

	k := ErrorKey{Status: s.Status, Failure: s.Failure, Code: w.c.intern(code)}
	w.tick.Errors[k]++
}

// errorCode finds the value of "error_code" in a JSON body.
func errorCode(body []byte) []byte {
	const maxCode = 64

	_, rest, ok := bytes.Cut(body, []byte(`"error_code"`))
	if !ok {
		return nil
	}

	rest = bytes.TrimLeft(rest, " \t\r\n:")
	if len(rest) == 0 || rest[0] != '"' {
		return nil
	}

	code, _, ok := bytes.Cut(rest[1:], []byte{'"'})
	if !ok || len(code) > maxCode {
		return nil
	}

	return code
}

// Advance hands over what was counted when a new second has begun.
func (w *Worker) Advance(now int64) {
	if second := int(now / int64(time.Second)); second > w.second {
		w.handOver(second)
	}
}

// Next is when Advance wants to be called again.
func (w *Worker) Next() int64 { return int64(w.second+1) * int64(time.Second) }

func (w *Worker) handOver(second int) {
	select {
	case next := <-w.spare:
		w.tick.Second = w.second
		w.c.ticks <- w.tick // never full: there are only so many ticks
		w.tick = next
	default:
		// The collector still works on the last one. What this second counted shows one row later.
	}

	w.second = second
}

// Close hands over the rest.
func (w *Worker) Close() {
	w.tick.Second = w.second
	w.tick.Last = true
	w.c.ticks <- w.tick
	w.tick = nil
}
