//go:build !race

package serve_test

import (
	"runtime"
	"testing"

	"github.com/sluice-gateway/sluice/runtime/serve"
)

// TestIdleWebSocketsAreSmall weighs idle WebSockets of a worker, and the clients of this test with them.
func TestIdleWebSocketsAreSmall(t *testing.T) { //nolint:paralleltest // measures the whole process
	const (
		sockets = 1000
		most    = 8 << 10
	)

	w := start(t, serve.ServerConfig{})

	open := func(n int) (used uint64) {
		for range n {
			w.rawSocket(t, "permessage-deflate")
		}

		var m runtime.MemStats

		runtime.GC()
		runtime.GC() // what pools held is gone after the second
		runtime.ReadMemStats(&m)

		return m.HeapAlloc + m.StackInuse
	}

	before := open(50)
	after := open(sockets)

	each := int64(after-before) / sockets
	t.Logf("%d bytes each", each)

	if each > most {
		t.Errorf("an idle WebSocket takes %d bytes, want at most %d", each, most)
	}
}
