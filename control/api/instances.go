package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/control/launch"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// Logs reads what instances print. launch.Local implements it.
type Logs interface {
	CopyLog(ctx context.Context, serviceID, instanceID string, o launch.LogOptions, write func([]byte) error) error
}

type instanceView struct {
	ID           string `json:"instance_id"`
	ModelID      string `json:"model_id"`
	ModelName    string `json:"model_name"`
	ModelVersion string `json:"model_version"`
	State        string `json:"state"`
	Reason       string `json:"reason,omitempty"`
	Node         string `json:"node,omitempty"`
	PID          int    `json:"pid,omitempty"`
	Restarts     int    `json:"restarts"`
	StartedAt    int64  `json:"started_at,omitempty"`
	ReadyAt      int64  `json:"ready_at,omitempty"`
}

// listInstances tells the instances of a service, the newest last.
func (a *API) listInstances(r *web.Request) (any, error) {
	q := r.Query()
	page := q.Page()

	if err := q.Err(); err != nil {
		return nil, err
	}

	it, err := a.service(r)
	if err != nil {
		return nil, err
	}

	instances, err := a.instances(r, it.ID)
	if err != nil {
		return nil, err
	}

	slices.SortFunc(instances, func(x, y spec.Instance) int {
		if len(x.ID) != len(y.ID) {
			return len(x.ID) - len(y.ID) // ids end with a serial number
		}

		return strings.Compare(x.ID, y.ID)
	})

	views := make([]instanceView, len(instances))
	for i := range instances {
		in := &instances[i]
		views[i] = instanceView{
			ID: in.ID, ModelID: in.ModelID, ModelName: in.ModelName, ModelVersion: in.ModelVersion, State: string(in.State),
			Reason: in.Reason, Node: in.Node, PID: in.PID, Restarts: in.Restarts, StartedAt: in.StartedAt, ReadyAt: in.ReadyAt,
		}
	}

	total := len(views)
	views = web.Cut(page, views)

	return map[string]any{"service_id": it.ID, "total_count": total, "count": len(views), "instances": views}, nil
}

// Bounds of what is shown of a log.
const (
	defaultTail = 1000
	maxTail     = 1_000_000
)

// showInstanceLog gives the last lines of what an instance printed, and with follow what it prints
// until it ends. Logs stay for a while when the instance is gone.
func (a *API) showInstanceLog(r *web.Request) (any, error) {
	q := r.Query()
	o := launch.LogOptions{Tail: int(q.Int("tail", defaultTail, 0, maxTail)), Follow: q.Bool("follow")}

	if err := q.Err(); err != nil {
		return nil, err
	}

	it, err := a.service(r)
	if err != nil {
		return nil, err
	}

	id := r.Var("instance_id")

	return web.Stream{Run: func(ctx context.Context, write func([]byte) error) error {
		if a.d.Logs == nil {
			return a.noLog(r, it.ID, id) //nolint:contextcheck // the request carries it
		}

		err := a.d.Logs.CopyLog(ctx, it.ID, id, o, write)
		if errors.Is(err, launch.ErrNoLog) {
			return a.noLog(r, it.ID, id) //nolint:contextcheck // as above
		}

		if err != nil {
			return fmt.Errorf("read the log of %s: %w", clip(id), err)
		}

		return nil
	}}, nil
}

// noLog says why there is no log: the instance runs elsewhere, or is not known.
func (a *API) noLog(r *web.Request, serviceID, id string) error {
	instances, err := a.instances(r, serviceID)
	if err != nil {
		return err
	}

	for i := range instances {
		if instances[i].ID == id {
			return fault.New(fault.ObjectNotFound, "Instance %s has no log here; it runs on %s.", id, instances[i].Node)
		}
	}

	return web.NotFound("instance", id)
}
