package upstream

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

// Config of the connections to instances. Zero means the default.
type Config struct {
	// DialTimeout bounds connecting, TLS included; default 2 s.
	DialTimeout time.Duration
	// IdleTimeout closes a connection that was not used for so long; default 60 s. It must be
	// below the workers' own (200 s).
	IdleTimeout time.Duration
	// MaxIdle connections per instance; default 256.
	MaxIdle int
	// MaxHead bytes of an answer's status line and headers; default 64 KiB.
	MaxHead int
	// BufferBytes: an answer of known length up to this is passed on as a whole; default 4 MiB.
	// Others are streamed.
	BufferBytes int64
	// StreamIdle is how long a streamed answer may pause; default 5 min.
	StreamIdle time.Duration
	// PollEvery is how soon a vanished client is noticed while its answer is awaited; default 50 ms.
	PollEvery time.Duration
	// TLS for instances that speak https. Default: the system's roots; on this machine's
	// loopback any certificate, because engines there make their own.
	TLS *tls.Config
	// Worker is the TLS configuration towards our own worker of an instance, which both sides prove
	// themselves with. Without it, workers that ask for certificates cannot be reached.
	Worker func(instance string) *tls.Config
}

// Defaults returns c with every zero field filled.
func (c Config) Defaults() Config {
	c.DialTimeout = cmp.Or(c.DialTimeout, 2*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, time.Minute)
	c.MaxIdle = cmp.Or(c.MaxIdle, 256)
	c.MaxHead = cmp.Or(c.MaxHead, 64<<10)
	c.BufferBytes = cmp.Or(c.BufferBytes, 4<<20)
	c.StreamIdle = cmp.Or(c.StreamIdle, 5*time.Minute)
	c.PollEvery = cmp.Or(c.PollEvery, 50*time.Millisecond)

	return c
}

// Validate reports every mistake in c.
func (c Config) Validate() error {
	c = c.Defaults()

	var errs []error

	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"dial_timeout", c.DialTimeout > 0},
		{"idle_timeout", c.IdleTimeout > 0 && c.IdleTimeout < 200*time.Second},
		{"max_idle", c.MaxIdle > 0},
		{"max_head", c.MaxHead >= 1<<10 && c.MaxHead <= 1<<24},
		{"buffer_bytes", c.BufferBytes > 0 && c.BufferBytes <= 1<<30},
		{"stream_idle", c.StreamIdle > 0},
		{"poll_every", c.PollEvery > 0},
	} {
		if !f.ok {
			errs = append(errs, fmt.Errorf("%s is out of range", f.name))
		}
	}

	return errors.Join(errs...)
}
