package auth

import (
	"net/netip"
	"time"
)

// Method is how a principal proved who it is.
type Method uint8

// Methods.
const (
	MethodNone Method = iota
	MethodToken
	MethodAKSK
	MethodAppSignature
	MethodAppCode
	MethodAppKey
)

// Principal is who calls. Values are immutable and may be shared between requests.
type Principal struct {
	Method    Method
	DomainID  string
	ProjectID string // "" for a domain-scoped token
	UserID    string
	UserName  string
	AppID     string // set for the App methods
	AccessKey string // set for MethodAKSK
	TokenID   string // set for MethodToken
	// Key identifies the principal for limits and stickiness: "user:ID" or "app:ID".
	Key       string
	ExpiresAt time.Time
}

// Headers reads request headers as they came. name is in lower case; nil if absent.
type Headers interface {
	Get(name string) []byte
	Each(f func(name, value []byte) bool)
}

// Request is what verifiers look at: the raw request line and headers, before anything is rewritten.
type Request struct {
	Method []byte
	Path   []byte // raw, as on the request line
	Query  []byte // raw, without "?"
	Host   []byte // value of the Host header as received
	Header Headers
	Remote netip.Addr
	TLS    bool
	Now    time.Time
	// Suspect requests come from a source that failed often lately. What is costly to verify in
	// them takes turns, so that a flood of forgeries cannot take all processors.
	Suspect bool
	// Body reads the body; called at most once, and only when a signature covers it.
	Body func() ([]byte, error)
}
