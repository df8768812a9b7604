package edge

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// accessLog writes one line per request on a goroutine of its own. The queue is bounded: a slow disk
// costs lines, which are counted, never latency.
type accessLog struct {
	out     io.Writer
	log     *slog.Logger
	off     bool
	sample  uint64
	seen    atomic.Uint64
	queue   chan logLine
	dropped func()
}

// logLine is a copy of what a line needs, so that the call may go on.
type logLine struct {
	at               time.Time
	id, method, path string
	host             string
	remote           netip.AddrPort
	door             Door
	record           gateway.Record
}

const (
	// maxLoggedPath bounds what a client can write into the log.
	maxLoggedPath = 512
	// maxBatch is what one write carries: a pipe takes that much without mixing it with the lines of others.
	maxBatch = 4 << 10
)

func newAccessLog(cfg AccessLog, deps *Deps) *accessLog {
	dropped := deps.Hooks.LogDropped
	if dropped == nil {
		dropped = func() {}
	}

	return &accessLog{
		out: deps.Access, log: deps.Log, off: cfg.Off || deps.Access == nil, sample: uint64(cfg.Sample),
		queue: make(chan logLine, cfg.Queue), dropped: dropped,
	}
}

// request logs a settled call. Health checks are many and say nothing.
func (l *accessLog) request(x *exchange) {
	rec := &x.call.Record
	if l.off || x.health || rec.Outcome == gateway.Served && l.sample > 1 && l.seen.Add(1)%l.sample != 0 {
		return
	}

	l.put(x.logLine())
}

// socket logs a WebSocket that is over.
func (l *accessLog) socket(line *logLine) {
	if !l.off {
		l.put(*line)
	}
}

// logLine copies what is to be logged.
func (x *exchange) logLine() logLine {
	// One string for both.
	path := x.call.Path[:min(len(x.call.Path), maxLoggedPath)]
	x.text = append(append(x.text[:0], path...), x.call.Host...)
	text := string(x.text)

	return logLine{
		at: x.start, id: x.call.ID, method: methodName(x.call.Method), path: text[:len(path)], host: text[len(path):],
		remote: x.call.Remote, door: x.conn.door.kind, record: x.call.Record,
	}
}

// methodName is the method, which the guard knows, without an allocation.
func methodName(m []byte) string {
	for _, name := range []string{"POST", "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		if string(m) == name {
			return name
		}
	}

	return ""
}

// rejected logs a request that the guard turned away. Nothing of it is trusted enough to be shown.
func (l *accessLog) rejected(c *conn, f *fault.Error, id string) {
	if l.off {
		return
	}

	l.put(logLine{
		at: c.x.start, id: id, remote: c.remote, door: c.door.kind,
		record: gateway.Record{
			Outcome: gateway.RejectedBad, Status: f.Code.Status(), Err: f, Total: time.Since(c.x.start), BytesOut: c.x.bytesOut,
		},
	})
}

func (l *accessLog) put(line logLine) {
	select {
	case l.queue <- line:
	default:
		l.dropped()
	}
}

// run writes lines until ctx ends, then what is still queued. Lines that are waiting are written together.
func (l *accessLog) run(ctx context.Context) error {
	buf := make([]byte, 0, 2*maxBatch)

	for {
		select {
		case line := <-l.queue:
			buf = l.more(appendLine(buf[:0], &line))
		case <-ctx.Done():
			for len(l.queue) > 0 {
				buf = l.more(buf[:0])
			}

			return nil
		}
	}
}

// more appends lines as long as there are any and writes them whenever a batch is full.
func (l *accessLog) more(buf []byte) []byte {
	whole := len(buf)

	for {
		select {
		case line := <-l.queue:
			if buf = appendLine(buf, &line); len(buf) > maxBatch && whole > 0 {
				l.write(buf[:whole])
				buf = append(buf[:0], buf[whole:]...)
			}

			whole = len(buf)
		default:
			if len(buf) > 0 {
				l.write(buf)
			}

			return buf
		}
	}
}

func (l *accessLog) write(b []byte) {
	if _, err := l.out.Write(b); err != nil {
		l.dropped()
		l.log.Debug("cannot write the access log", slog.String("err", err.Error()))
	}
}
