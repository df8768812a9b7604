// Package request makes the requests of a load test.
//
// A Mix is a weighted list of Items, compiled once and safe for concurrent use. Each sender takes a Source
// from it, which belongs to that sender: it renders templates and signs each request afresh in buffers that it
// keeps, without allocation. Items without any moving part are rendered once.
package request
