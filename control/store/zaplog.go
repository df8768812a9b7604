package store

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"go.uber.org/zap/zapcore"
)

// zapCore hands the log of etcd to slog, one level lower than etcd means it: a single
// member warns about much that is ordinary here, such as a slow disk or having no peers.
type zapCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

// Enabled implements zapcore.LevelEnabler.
func (c *zapCore) Enabled(level zapcore.Level) bool {
	return level >= zapcore.WarnLevel && c.log.Enabled(context.Background(), slogLevel(level))
}

// With implements zapcore.Core.
func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{log: c.log, fields: append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check implements zapcore.Core.
func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}

	return ce
}

// Write implements zapcore.Core.
func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}

	for _, f := range fields {
		f.AddTo(enc)
	}

	attrs := make([]slog.Attr, 0, len(enc.Fields)+1)
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}

	attrs = append(attrs, slog.String("etcd", e.Message))
	c.log.LogAttrs(context.Background(), slogLevel(e.Level), "message of etcd", attrs...)

	return nil
}

// Sync implements zapcore.Core.
func (*zapCore) Sync() error { return nil }

func slogLevel(level zapcore.Level) slog.Level {
	switch {
	case level >= zapcore.DPanicLevel:
		return slog.LevelError
	case level >= zapcore.ErrorLevel:
		return slog.LevelWarn
	default:
		return slog.LevelDebug
	}
}

// guard stands where etcd would end the process because it cannot go on, with a full disk
// for example. It notes the reason and ends the goroutine only: what needs no state, such
// as a gateway with its last snapshot, goes on.
type guard struct {
	broken chan struct{} // closed when the member cannot go on
	once   sync.Once
	text   string // why; set before broken is closed
}

func newGuard() *guard { return &guard{broken: make(chan struct{})} }

// OnWrite implements zapcore.CheckWriteHook.
func (g *guard) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	text := e.Message

	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			text = fmt.Sprintf("%s: %v", text, err)
		}
	}

	g.breaks(text)
	runtime.Goexit()
}

// breaks notes the first reason why the member cannot go on.
func (g *guard) breaks(text string) {
	g.once.Do(func() {
		g.text = text
		close(g.broken)
	})
}

// isBroken tells whether the member cannot go on.
func (g *guard) isBroken() bool {
	select {
	case <-g.broken:
		return true
	default:
		return false
	}
}

// err is why the member cannot go on; call it when broken is closed.
func (g *guard) err() error { return fmt.Errorf("embedded etcd stopped: %s", g.text) }
