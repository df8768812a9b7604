//go:build !linux

package wire

import (
	"context"
	"errors"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// Loop exists on Linux only: its precision rests on epoll.
type Loop struct{}

// New fails.
func New(Config, *Shared, Source, *measure.Worker) (*Loop, error) {
	return nil, errSystem
}

// Prepare does nothing.
func (*Loop) Prepare(context.Context) error { return nil }

// Run does nothing.
func (*Loop) Run(context.Context) error { return nil }

// Stats is empty.
func (*Loop) Stats() Stats { return Stats{} }

// Close does nothing.
func (*Loop) Close() {}

var errSystem = errors.New("load can be generated on Linux only")

// Try fails.
func Try(context.Context, *Endpoint) error { return errSystem }

// Once fails.
func Once(context.Context, *Endpoint, []byte, bool) (status int, body []byte, err error) {
	return 0, nil, errSystem
}
