package gateway

import (
	"encoding/json"
	"fmt"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/router"
)

// explainRoute is the value of X-Sluice-Explain that asks where a request would go.
const explainRoute = "route"

// asksForRoute reports whether the caller wants to know the way instead of going it.
func (w *walk) asksForRoute() bool {
	return string(w.call.Header.Get("x-sluice-explain")) == explainRoute
}

// explanation is the answer to a request with X-Sluice-Explain: route.
type explanation struct {
	ServiceID   string `json:"service_id"`
	ServiceName string `json:"service_name,omitempty"`
	// Revision of the routing snapshot by which was decided.
	Revision  int64  `json:"revision"`
	Principal string `json:"principal"`
	Path      string `json:"path"` // at the engine
	router.Explanation
}

// explain tells where this very request would go: it is decided by the plan in force here,
// for the caller who sent it, and not sent on. Only who may see the service may know.
func (w *walk) explain() error {
	c := w.call

	p := c.Record.Principal
	if p == nil || p.Method == auth.MethodNone {
		return fault.New(fault.NoCredentials, "Explaining a route needs credentials.")
	}

	if err := w.plan.Guard.Authorize(p, auth.ActionServiceGet, w.service.Project, w.service.ID); err != nil {
		return err //nolint:wrapcheck // a fault already
	}

	q := router.Request{Header: c.Header, Query: c.Query, Principal: p, Remote: c.Remote.Addr()}

	body, err := json.Marshal(explanation{
		ServiceID: w.service.ID, ServiceName: w.service.Name, Revision: w.plan.Revision,
		Principal: p.Key, Path: string(w.rest), Explanation: w.service.Route.Explain(&q),
	})
	if err != nil {
		return fmt.Errorf("explain the route of %s: %w", w.service.ID, err)
	}

	c.Record.Outcome, c.Record.Status = Served, 200
	c.Record.BytesOut = int64(len(body))
	c.Out.AddHeader("Content-Type", []byte("application/json"))
	c.Out.Set(200, body)

	return nil
}
