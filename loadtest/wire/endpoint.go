package wire

import (
	"crypto/tls"
	"time"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// Endpoint is where requests go.
type Endpoint struct {
	Network   string   // "tcp" or "unix"
	Addresses []string // connections are spread over them in turn
	TLS       *tls.Config
	// Timeout bounds making a connection.
	Timeout time.Duration
	// Upgrade, if given, makes the connection a WebSocket: it appends the header fields of the opening
	// handshake (request line, Host, credentials), each line ended, without the fields of the protocol itself.
	Upgrade func(dst []byte) []byte
}

// DialError tells at which stage a connection failed.
type DialError struct {
	Class  measure.Failure
	Status int    // of a refused upgrade
	Body   []byte // of a refused upgrade
	Err    error
}

// Error implements error.
func (e *DialError) Error() string { return e.Err.Error() }

// Unwrap implements errors.
func (e *DialError) Unwrap() error { return e.Err }
