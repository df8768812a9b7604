// Package storetest gives tests a store on a real embedded etcd.
package storetest

import (
	"log/slog"
	"testing"

	"github.com/sluice-gateway/sluice/control/store"
)

// New starts etcd in a directory of the test and stops it when the test ends.
func New(tb testing.TB) *store.Store {
	tb.Helper()

	e := Start(tb, tb.TempDir())
	tb.Cleanup(e.Close)

	return store.New(e.Client(), "")
}

// Start starts etcd in dir; the caller closes it.
func Start(tb testing.TB, dir string) *store.Embedded {
	tb.Helper()

	e, err := store.StartEmbedded(tb.Context(), store.EmbeddedConfig{Dir: dir}, Logger())
	if err != nil {
		tb.Fatalf("start etcd: %v", err)
	}

	return e
}

// Logger discards everything.
func Logger() *slog.Logger { return slog.New(slog.DiscardHandler) }
