// Package fault is the closed set of errors that Sluice tells its users.
//
// A room classifies an error once, where it arises, with New or Wrap; doors
// (edge, control API, worker servers) render it. An error that carries no fault is
// Internal, and nothing of its text leaves the process.
//
// Values are immutable and safe for concurrent use.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Error is a classified error with a text that is safe to show to a caller.
type Error struct {
	// Code selects status and wire code.
	Code Code
	// Msg is shown to the caller. Empty means the code's default text.
	Msg string
	// RetryAfter, when positive, tells the caller when trying again makes sense.
	RetryAfter time.Duration

	cause error
}

// New returns a fault with a formatted message for the caller.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}

// Wrap classifies cause; cause is for logs only, msg is for the caller.
func Wrap(code Code, cause error, format string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...), cause: cause}
}

// After returns a copy of e that asks the caller to wait d before trying again.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d

	return &c
}

// Error implements error; it includes the cause and is meant for logs.
func (e *Error) Error() string {
	if e.cause != nil {
		return e.Code.Wire() + ": " + e.Message() + ": " + e.cause.Error()
	}

	return e.Code.Wire() + ": " + e.Message()
}

// Message is the text for the caller.
func (e *Error) Message() string {
	if e.Msg != "" {
		return e.Msg
	}

	return e.Code.Text()
}

// Unwrap returns the cause, if any.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether target is a fault with the same code.
func (e *Error) Is(target error) bool {
	var t *Error

	return errors.As(target, &t) && t.Code == e.Code
}

// From finds the fault in err. An unclassified error becomes Internal without its text;
// a nil error gives nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}

	var f *Error
	if errors.As(err, &f) {
		return f
	}

	return &Error{Code: Internal, cause: err}
}
