// Package gateway is the corridor that one request walks: plan, match, verify, admit,
// pick, forward, settle.
//
// A door (gateway/edge) fills a Call and hands it to Gateway.Do on its own goroutine. Do
// returns when the answer stands in Call.Out or has been streamed through it. The door owns
// the Call and every slice in it and may reuse them after Do returned; nothing in the corridor
// keeps a reference. The corridor knows no transport: fasthttp stays in edge and upstream.
package gateway
