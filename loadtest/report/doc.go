// Package report renders what a load test found: as text for a terminal, as JSON, as CSV with the columns
// of perf_analyzer, and as one HTML file with plots and nothing to load from elsewhere.
//
// A Report is filled by the command and rendered by functions without state. Live writes progress while a
// run goes on; it is fed from one goroutine.
package report
