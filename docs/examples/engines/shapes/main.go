// Command shapes is a sample of a custom engine with the paths of other servers: those of Triton
// (/v2/models/…/infer) and of TF Serving (/v1/models/…:predict). It tells what reached it, so that one can see
// that requests pass through untouched. Its config.json declares no apis: every path is let through.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"strings"
	"time"
)

func main() {
	port := flag.String("port", "", "port to listen on")
	flag.Parse()

	server := &http.Server{Addr: "127.0.0.1:" + *port, Handler: http.HandlerFunc(serve), ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}

func serve(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path

	switch {
	case path == "/v2/health/ready" || path == "/v2/health/live":
		w.WriteHeader(http.StatusOK)
	case strings.HasPrefix(path, "/v2/models/") && strings.HasSuffix(path, "/infer"),
		strings.HasPrefix(path, "/v1/models/") && strings.Contains(path, ":"):
		seen(w, r)
	default:
		http.Error(w, `{"error":"unknown path"}`, http.StatusNotFound)
	}
}

// seen answers with what came.
func seen(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}

	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Inference-Header-Content-Length", r.Header.Get("Inference-Header-Content-Length"))

	err = json.NewEncoder(w).Encode(map[string]any{
		"method": r.Method, "uri": r.RequestURI, "content_type": r.Header.Get("Content-Type"), "body": body,
	})
	if err != nil {
		log.Print(err)
	}
}
