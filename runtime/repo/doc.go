// Package repo holds the models of one worker.
//
// A Repo loads model packages into sessions of an engine, puts a batcher before each,
// and hands out reference-counted Handles. A new load never disturbs what serves: it is
// fetched, verified, loaded and warmed beside it, then swapped in, and the old one drains
// when its last Handle is released. A failed load leaves the old one serving.
//
// The Repo owns sessions and batchers; Run owns all goroutines. Everything is safe for
// concurrent use. A Handle is owned by who acquired it and must be released exactly once.
package repo
