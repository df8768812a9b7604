package main

import (
	"net/http"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/gateway/plan"
)

// visiblePatience bounds how long an answer waits for the gateway of this process.
const visiblePatience = 250 * time.Millisecond

// visible holds back the answer to a change of credentials or of a service until the gateway of this process
// follows it, so that a key works, or stops working, and weights and rules hold, as soon as their owner hears of it.
func visible(next http.Handler, plans *plan.Follower) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if plans == nil || !changesRoutes(r) {
			next.ServeHTTP(w, r)

			return
		}

		next.ServeHTTP(&heldAnswer{ResponseWriter: w, plans: plans, before: revision(plans)}, r)
	})
}

// changesRoutes tells by method and path; an answer that waits in vain costs visiblePatience.
func changesRoutes(r *http.Request) bool {
	p := r.URL.Path

	switch {
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return false
	case p == "/v3/auth/tokens":
		return r.Method == http.MethodDelete
	case r.Method == http.MethodPut && strings.HasPrefix(p, "/v1/"):
		return strings.Contains(p, "/services/")
	default:
		return strings.HasPrefix(p, "/v3.0/OS-CREDENTIAL/") || strings.HasPrefix(p, "/v3/users/") ||
			strings.Contains(p, "/app-auth")
	}
}

func revision(plans *plan.Follower) int64 {
	if p := plans.Load(); p != nil {
		return p.Revision
	}

	return 0
}

// heldAnswer waits for a newer plan before the head of a success goes out.
type heldAnswer struct {
	http.ResponseWriter

	plans  *plan.Follower
	before int64
	sent   bool
}

// WriteHeader implements http.ResponseWriter.
func (h *heldAnswer) WriteHeader(status int) {
	if !h.sent && status < http.StatusMultipleChoices {
		h.wait()
	}

	h.sent = true
	h.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (h *heldAnswer) Write(p []byte) (int, error) {
	if !h.sent {
		h.WriteHeader(http.StatusOK)
	}

	return h.ResponseWriter.Write(p) //nolint:wrapcheck // it is that writer to its user
}

// Unwrap lets http.ResponseController reach the writer below.
func (h *heldAnswer) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *heldAnswer) wait() {
	late := time.NewTimer(visiblePatience)
	defer late.Stop()

	for {
		changed := h.plans.Changed()
		if revision(h.plans) != h.before {
			return
		}

		select {
		case <-changed:
		case <-late.C:
			return
		}
	}
}
