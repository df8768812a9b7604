// Package web is the plumbing below the REST API of control: routing, authentication and
// authorisation of a request, bounded and typed reading of JSON, error bodies, request ids.
//
// A Router is built once and then immutable; it serves any number of requests at once. A
// Request belongs to the goroutine that handles it.
package web
