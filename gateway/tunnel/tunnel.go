package tunnel

import (
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

// Tunnel is one relayed WebSocket. The Set owns it.
type Tunnel struct {
	set   *Set
	ends  [2]end  // by Side
	pumps [2]pump // by the Side where the direction starts
	began time.Time
	done  func(Result)
	alive atomic.Int32 // pumps that have not ended
	over  atomic.Bool  // both pumps are to end

	seen    [2]atomic.Int64 // ms since began: when an end last sent anything
	message atomic.Int64    // the same for the last message of either
	pinged  atomic.Int64

	mu sync.Mutex // guards the rest
	// closeBy is when the tunnel ends whatever the ends do; zero until something ended it.
	closeBy time.Time
	drainAt time.Time
	bowed   [2]bool // an end sent its close frame
	verdict *farewell
	result  Result
	decided bool // result says who ended it
}

func (t *Tunnel) now() int64 { return time.Since(t.began).Milliseconds() }

// decide notes how the tunnel ended; the first word counts. The caller holds mu.
func (t *Tunnel) decide(r Result) {
	if t.decided {
		return
	}

	t.decided = true
	t.result = r
}

// limit bounds what is left of the tunnel. The caller holds mu.
func (t *Tunnel) limit(d time.Duration) {
	if at := time.Now().Add(d); t.closeBy.IsZero() || at.Before(t.closeBy) {
		t.closeBy = at
	}
}

// bow is called when an end sent a close frame: it travels on, and when both have sent one the
// tunnel is over.
func (t *Tunnel) bow(from Side, f farewell) {
	t.mu.Lock()
	t.bowed[from] = true
	both := t.bowed[1-from]
	t.decide(Result{Code: f.code, By: from, Reason: f.reason})

	// An engine that was told why its client is cut off answers with the same; the client gets
	// the original, which names the rule.
	if from == Engine && t.verdict != nil {
		f = *t.verdict
	}

	t.limit(t.set.cfg.CloseWait)
	t.mu.Unlock()

	other := &t.ends[1-from]
	other.bye(f, false)

	told := t.ends[from].bowedTo()
	if both || told && t.verdictGiven() {
		t.finish()
	}
}

// verdictGiven reports whether the client broke the rules and will not be listened to any more.
func (t *Tunnel) verdictGiven() bool {
	t.mu.Lock()
	defer t.mu.Unlock()

	return t.verdict != nil
}

// lost is called when the connection of an end broke.
func (t *Tunnel) lost(from Side, err error) {
	t.mu.Lock()
	bowed, verdict := t.bowed, t.verdict
	r := Result{Code: wsframe.CodeLost, By: from, Broken: true, Reason: "the connection of the " + from.String() + " ended: " + err.Error()}
	t.mu.Unlock()

	client := &t.ends[Client]
	told := client.bowedTo()

	switch {
	case from == Client:
		// An end that was told good-bye may hang up without another word.
		if told {
			r.Broken = false
		}
	case verdict != nil:
		client.bye(*verdict, false)
	case bowed[Client]:
		// The engine hung up instead of answering the close frame: the client gets its answer.
		client.bye(farewell{code: t.code()}, false)
	default:
		r.Code = wsframe.CodeInternal
		client.bye(farewell{code: wsframe.CodeInternal, reason: "the engine's connection broke"}, false)
	}

	t.mu.Lock()
	t.decide(r)
	t.mu.Unlock()
	t.finish()
}

func (t *Tunnel) code() wsframe.Code {
	t.mu.Lock()
	defer t.mu.Unlock()

	return t.result.Code
}

// broke is called when an end broke the rules. Nothing more is read from it.
func (t *Tunnel) broke(from Side, v *wsframe.Violation) {
	f := farewell{v.Code, v.Reason}
	t.mu.Lock()
	t.decide(Result{Code: v.Code, By: from, Broken: true, Reason: v.Reason, Linger: from == Client})
	t.mu.Unlock()

	if from == Engine {
		t.ends[Engine].bye(f, false)

		if v.Code != wsframe.CodeTooBig {
			f.code = wsframe.CodeInternal
		}

		t.mu.Lock()
		t.result.Code = f.code
		t.mu.Unlock()

		f.reason = "the engine broke the protocol: " + f.reason
		t.ends[Client].bye(f, false)
		t.finish()

		return
	}

	// What the engine has to say to earlier messages comes first: it is told, and its answers
	// travel until it closes. In the middle of a frame it cannot be told.
	t.mu.Lock()
	t.verdict = &f
	t.limit(t.set.cfg.Farewell)
	t.mu.Unlock()

	if t.ends[Engine].bye(f, false) {
		if t.ends[Engine].bowedTo() {
			return
		}
	}

	t.ends[Client].bye(f, false)
	t.finish()
}

// slow is called when an end takes no bytes.
func (t *Tunnel) slow(at Side) {
	t.mu.Lock()
	t.decide(Result{Code: wsframe.CodeTryLater, By: at, Broken: true, Reason: "the " + at.String() + " reads too slowly"})
	t.mu.Unlock()

	t.ends[1-at].bye(farewell{wsframe.CodeTryLater, "the " + at.String() + " reads too slowly"}, false)
	t.finish()
}

// leave says good-bye to both ends, each when the message to it is complete.
func (t *Tunnel) leave(code wsframe.Code, reason string) {
	t.mu.Lock()
	first := !t.decided
	t.decide(Result{Code: code, Local: true, Reason: reason})
	t.limit(t.set.cfg.CloseWait)
	t.mu.Unlock()

	if !first {
		return
	}

	for i := range t.ends {
		t.ends[i].bye(farewell{code, reason}, true)
	}
}

// expire ends a tunnel whose time is up, with a last word to an end that waits for one.
func (t *Tunnel) expire() {
	f := farewell{code: wsframe.CodeGoingAway}

	t.mu.Lock()
	if t.verdict != nil {
		f = *t.verdict
	} else if t.decided && t.result.Code.Sendable() {
		f.code = t.result.Code
	}
	t.mu.Unlock()

	t.ends[Client].bye(f, false)
	t.finish()
}

// finish ends both pumps. They may be waiting, parked, or the caller.
func (t *Tunnel) finish() {
	if t.over.Swap(true) {
		return
	}

	for i := range t.ends {
		t.ends[i].wake()
	}

	for i := range t.pumps {
		if p := &t.pumps[i]; p.state.CompareAndSwap(pumpParked, pumpEnded) {
			p.leave()
		}
	}
}

// ended is called when both pumps have ended.
func (t *Tunnel) ended() {
	_ = t.ends[Engine].conn.Close() // everything was said, or nobody is there to hear it
	t.set.forget(t)

	t.mu.Lock()
	r := t.result
	t.mu.Unlock()

	for i := range t.pumps {
		r.Messages[i], r.Bytes[i] = t.pumps[i].messages.Load(), t.pumps[i].bytes.Load()
	}

	r.Duration = time.Since(t.began)
	if t.ends[Client].bowedTo() {
		r.Linger = true
	}

	t.done(r)
}

// rescue ends a tunnel whose pump panicked with v.
func (t *Tunnel) rescue(v any) {
	t.set.log.Error("a tunnel broke an invariant", slog.Any("panic", v))

	if t.set.hooks.Panicked != nil {
		t.set.hooks.Panicked(v, debug.Stack())
	}

	t.mu.Lock()
	t.decide(Result{Code: wsframe.CodeInternal, Local: true, Reason: "internal error"})
	t.mu.Unlock()
	t.finish()
}
