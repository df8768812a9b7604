// Command websocket is a custom engine that speaks WebSocket: it sends every message back. On /chat it greets the
// caller first, by the query parameter "name", and answers "bye" with a close code of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	if err := run(ctx); err != nil {
		log.Fatal(err) //nolint:gocritic // nothing is left to be cleaned up
	}
}

func run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"health":"true"}`) // a prober that left needs no answer
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { serve(w, r, false) })
	mux.HandleFunc("/chat", func(w http.ResponseWriter, r *http.Request) { serve(w, r, true) })

	var lc net.ListenConfig

	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}

	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	go func() {
		<-ctx.Done()

		_ = server.Close() // the platform has drained it before
	}()

	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}

	return nil
}

func serve(w http.ResponseWriter, r *http.Request, chat bool) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{"echo"}, CompressionMode: websocket.CompressionContextTakeover,
	})
	if err != nil {
		return // Accept has answered
	}

	c.SetReadLimit(16 << 20)

	if err := talk(r.Context(), c, r.URL.Query().Get("name"), chat); err != nil && websocket.CloseStatus(err) == -1 {
		log.Print(err)
	}

	_ = c.CloseNow() // closed already, or broken
}

func talk(ctx context.Context, c *websocket.Conn, name string, chat bool) error {
	if chat {
		if err := c.Write(ctx, websocket.MessageText, []byte("hello "+name)); err != nil {
			return fmt.Errorf("greet: %w", err)
		}
	}

	for {
		kind, msg, err := c.Read(ctx)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}

		if chat && string(msg) == "bye" {
			return c.Close(4000, "bye "+name) //nolint:wrapcheck // says it all
		}

		if err := c.Write(ctx, kind, msg); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
}
