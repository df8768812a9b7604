// Command stream is a sample of a custom engine that answers piece by piece: a generator whose words
// come one at a time, as server-sent events or as chunks. Build it into the package directory, beside
// config.json: CGO_ENABLED=0 go build -o stream .
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { write(w, `{"health":"true"}`) })
	mux.HandleFunc("POST /generate", generate)
	mux.HandleFunc("GET /events", events)
	mux.HandleFunc("POST /upload", upload)

	server := &http.Server{Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	ended := make(chan error, 1)

	go func() { ended <- server.ListenAndServe() }()

	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}

	// Streams that are under way may end.
	grace, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	return server.Shutdown(grace)
}

// generate repeats the words of the prompt, one chunk each.
func generate(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Prompt  string `json:"prompt"`
		PauseMS int    `json:"pause_ms"`
	}

	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, `{"error_code":"Sample.1","error_msg":"want a JSON object with a prompt"}`, http.StatusBadRequest)

		return
	}

	w.Header().Set("Content-Type", "text/plain; charset=utf-8")

	for word := range strings.FieldsSeq(in.Prompt) {
		if !send(w, r, word+"\n", in.PauseMS) {
			return
		}
	}
}

// events sends numbered events: /events?n=10&pause_ms=100.
func events(w http.ResponseWriter, r *http.Request) {
	n, pause := number(r, "n", 5), number(r, "pause_ms", 100)

	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")

	for i := range n {
		// The moment lets a reader see how long an event was on its way.
		if !send(w, r, fmt.Sprintf("id: %d\ndata: {\"token\":%d,\"at\":%d}\n\n", i, i, time.Now().UnixNano()), pause) {
			log.Printf("client gone after %d events", i)

			return
		}
	}

	write(w, "event: end\ndata: {}\n\n")
}

// upload counts what it is sent, without keeping it.
func upload(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		log.Printf("upload broke off after %d bytes: %v", n, err)

		return
	}

	write(w, fmt.Sprintf(`{"bytes":%d}`, n))
}

// send writes one piece at once and pauses; false when the client is gone.
func send(w http.ResponseWriter, r *http.Request, piece string, pauseMS int) bool {
	write(w, piece)

	if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return false
	}

	select {
	case <-r.Context().Done():
		return false
	case <-time.After(time.Duration(pauseMS) * time.Millisecond):
		return true
	}
}

func write(w io.Writer, s string) { _, _ = io.WriteString(w, s) } // a client that is gone shows in its context

func number(r *http.Request, name string, otherwise int) int {
	if n, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil && n >= 0 {
		return n
	}

	return otherwise
}
