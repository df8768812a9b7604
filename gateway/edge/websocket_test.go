package edge_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-gateway/sluice/gateway"
)

func TestWebSocketRelaysBothWays(t *testing.T) {
	t.Parallel()

	for name, mode := range map[string]websocket.CompressionMode{
		"plain": websocket.CompressionDisabled, "compressed": websocket.CompressionContextTakeover,
		"compressed alone": websocket.CompressionNoContextTakeover,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			k := withEngine(t, echoEngine(t))
			c := k.open(t, "/chat?room=1", &websocket.DialOptions{
				CompressionMode: mode, CompressionThreshold: 1, Subprotocols: []string{"v1.echo", "other"},
			})

			if c.Subprotocol() != "v1.echo" {
				t.Errorf("subprotocol %q", c.Subprotocol())
			}

			for i, size := range []int{0, 1, 125, 126, 1024, 65535, 65536, 1 << 20, 5 << 20, 3} {
				kind, msg := websocket.MessageText, []byte(strings.Repeat("aé", size/3)+strings.Repeat("x", size%3))
				if i%2 == 1 {
					kind, msg = websocket.MessageBinary, bytes.Repeat([]byte{0xff, 0, 0x80, byte(i)}, size/4)
				}

				if err := c.Write(t.Context(), kind, msg); err != nil {
					t.Fatal(err)
				}

				gotKind, got, err := c.Read(t.Context())
				if err != nil || gotKind != kind || !bytes.Equal(got, msg) {
					t.Fatalf("size %d: %v, %d bytes of kind %v, want %d of %v", size, err, len(got), gotKind, len(msg), kind)
				}
			}

			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()

			reading := c.CloseRead(ctx)
			if err := c.Ping(ctx); err != nil {
				t.Errorf("ping: %v", err)
			}

			if err := c.Close(4001, "had enough"); err != nil {
				t.Errorf("close: %v", err)
			}

			<-reading.Done()

			rec := k.records(t, 1)[0]
			if rec.Status != 101 || rec.CloseCode != 4001 || rec.MessagesIn != 10 || rec.MessagesOut != 10 ||
				rec.Outcome != gateway.Served || rec.ServiceID != "svc" || rec.Instance != "i1" || rec.BytesIn == 0 {
				t.Errorf("record %+v", rec)
			}
		})
	}
}
