package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// accessLog writes one line per request on a goroutine of its own. The queue is bounded: a slow disk
// costs lines, which are counted, never latency.
type accessLog struct {
	out     *slog.Logger
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

// maxLoggedPath bounds what a client can write into the log.
const maxLoggedPath = 512

func newAccessLog(cfg AccessLog, out, fallback *slog.Logger, dropped func()) *accessLog {
	if out == nil {
		out = fallback
	}

	return &accessLog{
		out: out, off: cfg.Off, sample: uint64(cfg.Sample), queue: make(chan logLine, cfg.Queue), dropped: dropped,
	}
}

// request logs a settled call.
func (l *accessLog) request(x *exchange) {
	rec := &x.call.Record
	if l.off || rec.Outcome == gateway.Served && l.sample > 1 && l.seen.Add(1)%l.sample != 0 {
		return
	}

	l.put(logLine{
		at: x.start, id: x.call.ID, method: string(x.call.Method), path: loggedPath(x.call.Path), host: string(x.call.Host),
		remote: x.call.Remote, door: x.conn.door.kind, record: *rec,
	})
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

// loggedPath is the path without its query, which may hold credentials.
func loggedPath(p []byte) string {
	if len(p) > maxLoggedPath {
		return string(p[:maxLoggedPath]) + "…"
	}

	return string(p)
}

func (l *accessLog) put(line logLine) {
	select {
	case l.queue <- line:
	default:
		l.dropped()
	}
}

// run writes lines until ctx ends, then what is still queued.
func (l *accessLog) run(ctx context.Context) error {
	for {
		select {
		case line := <-l.queue:
			l.write(&line)
		case <-ctx.Done():
			for {
				select {
				case line := <-l.queue:
					l.write(&line)
				default:
					return nil
				}
			}
		}
	}
}

func (l *accessLog) write(line *logLine) {
	r := &line.record

	var buf [24]slog.Attr

	attrs := append(buf[:0],
		slog.String("request_id", line.id),
		slog.String("remote", line.remote.String()),
		slog.String("door", line.door.String()),
		slog.String("method", line.method),
		slog.String("host", line.host),
		slog.String("path", line.path),
		slog.Int("status", r.Status),
		slog.String("outcome", r.Outcome.String()),
		slog.Int64("bytes_in", r.BytesIn),
		slog.Int64("bytes_out", r.BytesOut),
		slog.Float64("total_ms", millis(r.Total)),
	)

	attrs = appendSet(attrs, "service", r.ServiceID)
	attrs = appendSet(attrs, "project", r.ProjectID)
	attrs = appendSet(attrs, "model", r.Model)
	attrs = appendSet(attrs, "instance", r.Instance)
	attrs = appendSet(attrs, "rule", r.Rule)
	attrs = appendPrincipal(attrs, r.Principal)

	if r.Attempts > 1 {
		attrs = append(attrs, slog.Int("attempts", r.Attempts))
	}

	for _, d := range []struct {
		key string
		v   time.Duration
	}{{"verified_ms", r.Verified}, {"admitted_ms", r.Admitted}, {"picked_ms", r.Picked}, {"first_byte_ms", r.FirstByte}} {
		if d.v > 0 {
			attrs = append(attrs, slog.Float64(d.key, millis(d.v)))
		}
	}

	if r.Err != nil {
		attrs = append(attrs, slog.String("error", r.Err.Error()))

		var f *fault.Error
		if errors.As(r.Err, &f) {
			attrs = append(attrs, slog.String("error_code", f.Code.Wire()))
		}
	}

	l.out.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}

func appendSet(attrs []slog.Attr, key, value string) []slog.Attr {
	if value == "" {
		return attrs
	}

	return append(attrs, slog.String(key, value))
}

// appendPrincipal names who called by id; credentials stay out of the log.
func appendPrincipal(attrs []slog.Attr, p *auth.Principal) []slog.Attr {
	if p == nil {
		return attrs
	}

	return append(attrs, slog.String("principal", p.Key), slog.String("auth", methodName(p.Method)))
}

func methodName(m auth.Method) string {
	switch m {
	case auth.MethodToken:
		return "token"
	case auth.MethodAKSK:
		return "aksk"
	case auth.MethodAppSignature:
		return "app_signature"
	case auth.MethodAppCode:
		return "app_code"
	case auth.MethodAppKey:
		return "app_key"
	case auth.MethodNone:
		return "none"
	default:
		return "unknown"
	}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
