// Command bench measures a build of Sluice against what else does its work, and writes one report.
//
// It is run from the root of the repository behind "make build":
//
//	go run ./test/bench -out docs/benchmarks/2026-01-31.md
//
// Everything listens on the loopback interface with ports that the kernel chooses, lives in a temporary
// directory and is stopped at the end. Two targets are always run in turn, so that what else happens on the
// machine meets both; what counts is their ratio, with its range over the rounds. A part whose tools are missing is
// skipped and says why.
package main
