// Command engine is a custom engine for the system tests. It does what its paths say, and it lies, breaks off
// and falls silent when asked to: /raw writes whatever bytes it is told.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

func main() {
	e := &engine{}

	mux := http.NewServeMux()
	mux.HandleFunc("/health", e.health)
	mux.HandleFunc("/about", e.about)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/sick", e.sicken)
	mux.HandleFunc("/raw", raw)
	mux.HandleFunc("/hang", e.hang)
	mux.HandleFunc("/gone", e.gone)
	mux.HandleFunc("/die", func(http.ResponseWriter, *http.Request) { os.Exit(7) })
	mux.HandleFunc("/say", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(os.Stdout, r.URL.Query().Get("line"))
		fmt.Fprintln(w, "said")
	})
	mux.HandleFunc("/eat", eat)

	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	ln, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}

	log.Printf("engine listens on %s", ln.Addr())

	if cert := os.Getenv("ENGINE_CERT"); cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, os.Getenv("ENGINE_KEY"))
		if err != nil {
			log.Fatal(err)
		}

		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	}

	log.Fatal(server.Serve(ln))
}

type engine struct {
	sick   atomic.Bool
	waits  atomic.Int64 // requests that hang
	endsAt atomic.Int64 // when the last one of them was cancelled, in ns
}

func (e *engine) health(w http.ResponseWriter, _ *http.Request) {
	if e.sick.Load() {
		http.Error(w, `{"health":"false"}`, http.StatusServiceUnavailable)

		return
	}

	fmt.Fprint(w, `{"health":"true"}`)
}

func (e *engine) sicken(w http.ResponseWriter, _ *http.Request) {
	e.sick.Store(true)
	fmt.Fprint(w, "{}")
}

// about tells how the engine was started.
func (e *engine) about(w http.ResponseWriter, r *http.Request) {
	dir, _ := os.Getwd()
	env := map[string]string{}

	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}

	name := ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}

	_ = json.NewEncoder(w).Encode(map[string]any{
		"args": os.Args[1:], "dir": dir, "env": env, "user": name, "pid": os.Getpid(), "tls": r.TLS != nil, "cpus": runtime.NumCPU(),
		"header": r.Header, "host": r.Host, "uri": r.RequestURI,
	})
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_, _ = io.Copy(w, r.Body)
}

// hang answers nothing (or, with ?head=1, an event and then nothing) until the client goes away.
func (e *engine) hang(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)

	if r.URL.Query().Get("head") != "" {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
	}

	e.waits.Add(1)
	<-r.Context().Done()
	e.endsAt.Store(time.Now().UnixNano())
	e.waits.Add(-1)
}

// gone tells how many requests hang and when the last one was cancelled.
func (e *engine) gone(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(map[string]int64{"waiting": e.waits.Load(), "ended_at": e.endsAt.Load()})
}

// raw writes the bytes of the body to the connection as they are. "\x00PAUSE 100\x00" in them pauses,
// "\x00RESET\x00" resets, "\x00HANG\x00" keeps silent. Then it closes.
func raw(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}

	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		log.Print(err)

		return
	}
	defer c.Close()

	for i, part := range strings.Split(string(body), "\x00") {
		if i%2 == 0 {
			if _, err := io.WriteString(c, part); err != nil {
				return
			}

			continue
		}

		verb, arg, _ := strings.Cut(part, " ")

		switch verb {
		case "PAUSE":
			ms, _ := strconv.Atoi(arg)
			time.Sleep(time.Duration(ms) * time.Millisecond)
		case "RESET":
			if t, ok := c.(*net.TCPConn); ok {
				_ = t.SetLinger(0)
			}

			return
		case "HANG":
			_, _ = bufio.NewReader(c).ReadByte()

			return
		case "FLOOD":
			n, _ := strconv.Atoi(arg)
			for range n {
				if _, err := io.WriteString(c, strings.Repeat("x", 1024)); err != nil {
					return
				}
			}
		}
	}
}

// eat takes ?mb= megabytes of memory and keeps them.
func eat(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.URL.Query().Get("mb"))
	kept := make([]byte, n<<20)

	for i := 0; i < len(kept); i += 4096 {
		kept[i] = 1
	}

	eaten = append(eaten, kept)

	fmt.Fprintln(w, len(eaten))
}

var eaten [][]byte //nolint:gochecknoglobals // keeps the memory
