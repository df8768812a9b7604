package tunnel

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

// Config bounds every tunnel of a Set. Zero means the default, negative no bound.
type Config struct {
	// MaxMessage bounds a message, on the wire and unpacked; default 64 MiB.
	MaxMessage int64
	// FramesPerSecond and MessagesPerSecond slow a sender down that sends more; default 50,000
	// frames, any number of messages. Twice as many may come at once.
	FramesPerSecond, MessagesPerSecond int
	// ControlsPerSecond ends a tunnel whose end sends more control frames; default 100. Ten times
	// as many may come at once.
	ControlsPerSecond int
	// Ping is how long a client may be silent before it is asked whether it is there; default 30 s.
	// Pong is how long it may be silent altogether; default 2 min.
	Ping, Pong time.Duration
	// Idle ends a tunnel without messages; default 1 h. Life ends any; default 24 h.
	Idle, Life time.Duration
	// Write is how long an end may take no bytes before it counts as too slow; default 30 s.
	Write time.Duration
	// CloseWait is how long an end may take to answer a close frame; default 5 s.
	CloseWait time.Duration
	// Farewell is how long answers under way may take after a client broke the rules; default 500 ms.
	Farewell time.Duration
	// ParkAfter is how long a silent direction keeps its goroutine; default 200 ms.
	ParkAfter time.Duration
}

// Defaults returns c with every zero field filled.
func (c Config) Defaults() Config {
	c.MaxMessage = cmp.Or(c.MaxMessage, 64<<20)
	c.FramesPerSecond = cmp.Or(c.FramesPerSecond, 50_000)
	c.MessagesPerSecond = cmp.Or(c.MessagesPerSecond, -1)
	c.ControlsPerSecond = cmp.Or(c.ControlsPerSecond, 100)
	c.Ping = cmp.Or(c.Ping, 30*time.Second)
	c.Pong = cmp.Or(c.Pong, 2*time.Minute)
	c.Idle = cmp.Or(c.Idle, time.Hour)
	c.Life = cmp.Or(c.Life, 24*time.Hour)
	c.Write = cmp.Or(c.Write, 30*time.Second)
	c.CloseWait = cmp.Or(c.CloseWait, 5*time.Second)
	c.Farewell = cmp.Or(c.Farewell, 500*time.Millisecond)
	c.ParkAfter = cmp.Or(c.ParkAfter, 200*time.Millisecond)

	return c
}

// Validate reports every mistake in c.
func (c Config) Validate() error {
	c = c.Defaults()

	var errs []error

	for _, f := range []struct {
		name string
		d    time.Duration
	}{{"write", c.Write}, {"close_wait", c.CloseWait}, {"farewell", c.Farewell}, {"park_after", c.ParkAfter}} {
		if f.d < 0 {
			errs = append(errs, fmt.Errorf("%s must be positive", f.name))
		}
	}

	if c.Ping > 0 && c.Pong > 0 && c.Pong <= c.Ping {
		errs = append(errs, errors.New("pong must be longer than ping"))
	}

	return errors.Join(errs...)
}

// Hooks announce what happens; nil fields are skipped. They must not block.
type Hooks struct {
	// Panicked: a tunnel ended because an invariant broke.
	Panicked func(v any, stack []byte)
}

// Side names an end of a tunnel, and the direction that starts there.
type Side uint8

// Sides.
const (
	Client Side = iota
	Engine
)

// String names the side.
func (s Side) String() string {
	if s == Engine {
		return "engine"
	}

	return "client"
}

// Result tells how a tunnel went.
type Result struct {
	// Code is the close code that the client sent or was sent; CodeLost if neither.
	Code wsframe.Code
	// By says who ended it; Local if it was neither of the ends.
	By    Side
	Local bool
	// Broken: the end that By names broke the rules, vanished or was too slow.
	Broken bool
	Reason string
	// Messages and Bytes count what each side sent, heads of frames included.
	Messages, Bytes [2]int64
	Duration        time.Duration
	// Linger: the client may still be sending, so that its connection should be closed gently.
	Linger bool
}
