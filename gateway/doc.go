// Package gateway is the corridor that one request walks: plan, match, verify, admit,
// pick, forward, settle.
//
// A door (gateway/edge) fills a Call and hands it to Gateway.Do on its own goroutine. Do
// returns when the answer stands in Call.Out or has been streamed through it. The door owns
// the Call and every slice in it and may reuse them after Do returned (after done, if the answer
// is streamed); nothing in the corridor keeps a reference. The door adds X-Request-Id to every answer. The corridor knows no transport: fasthttp stays in edge and upstream.
package gateway
