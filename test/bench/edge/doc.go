// Command edge compares the way through Sluice with nginx and HAProxy doing the same job on the
// same machine: check a token, apply a rate limit, split over two versions by weight. "make
// bench-edge" runs it. Everything listens on loopback and is stopped at the end.
package main
