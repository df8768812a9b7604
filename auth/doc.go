// Package auth turns the credentials of a request into a Principal.
//
// A Directory is the compiled, immutable form of the credentials and rights of one
// snapshot; the gateway swaps it with its plan. Verifiers hold the state that outlives a
// snapshot (token cache, lockout, replay cache) and are safe for concurrent use.
package auth
