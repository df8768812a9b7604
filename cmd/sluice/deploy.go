package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/sluice-gateway/sluice/auth"
)

// deploy makes the services of the configuration that do not exist yet, through the API as any
// operator would. One that cannot be made is logged; it must not keep the others from being served.
func (s *system) deploy(ctx context.Context) error {
	if len(s.settings.Deploy) == 0 {
		return nil
	}

	d := &deployer{handler: s.control.local, project: s.control.project, log: s.log}

	for i := range s.settings.Deploy {
		if err := d.one(ctx, &s.settings.Deploy[i]); err != nil {
			if ctx.Err() != nil {
				return ctx.Err() //nolint:wrapcheck // stopped while starting
			}

			s.log.Error("a service of the configuration cannot be deployed",
				slog.String("service", s.settings.Deploy[i].Service), slog.Any("error", err))
		}
	}

	return nil
}

// localGate lets the process call its own API.
type localGate struct{ principal *auth.Principal }

// Authenticate implements web.Gatekeeper.
func (g localGate) Authenticate(*auth.Request) (*auth.Principal, error) { return g.principal, nil }

// Authorize implements web.Gatekeeper.
func (localGate) Authorize(*auth.Principal, string, string, string) error { return nil }

type deployer struct {
	handler http.Handler
	project string
	log     *slog.Logger
}

func (d *deployer) one(ctx context.Context, c *deploySettings) error {
	found, err := d.find(ctx, "/services?service_name="+url.QueryEscape(c.Service), "services", func(m map[string]any) bool {
		return m["service_name"] == c.Service
	})
	if err != nil || found != nil {
		return err
	}

	id, err := d.model(ctx, c)
	if err != nil {
		return err
	}

	body := map[string]any{
		"service_name": c.Service, "infer_type": "real-time", "description": "deployed from the configuration",
		"config": []any{map[string]any{
			"model_id": id, "weight": 100, "specification": "local.cpu", "instance_count": c.Instances,
		}},
	}

	if _, err := d.call(ctx, http.MethodPost, "/services", body); err != nil {
		return fmt.Errorf("create the service: %w", err)
	}

	d.log.Info("deployed a service of the configuration", slog.String("service", c.Service))

	return nil
}

// model finds or publishes the model and waits until it can be used.
func (d *deployer) model(ctx context.Context, c *deploySettings) (string, error) {
	source, err := filepath.Abs(c.Source)
	if err != nil {
		return "", fmt.Errorf("model package: %w", err)
	}

	list := "/models?exact_match=true&model_name=" + url.QueryEscape(c.Model) + "&model_version=" + url.QueryEscape(c.Version)

	found, err := d.find(ctx, list, "models", func(m map[string]any) bool {
		return m["model_name"] == c.Model && m["model_version"] == c.Version
	})
	if err != nil {
		return "", err
	}

	if found == nil {
		found, err = d.call(ctx, http.MethodPost, "/models", map[string]any{
			"model_name": c.Model, "model_version": c.Version, "model_type": "ONNX", "source_location": source,
		})
		if err != nil {
			return "", fmt.Errorf("create the model: %w", err)
		}
	}

	id, _ := found["model_id"].(string)

	return id, d.published(ctx, id)
}

func (d *deployer) published(ctx context.Context, id string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()

	for {
		m, err := d.call(ctx, http.MethodGet, "/models/"+url.PathEscape(id), nil)
		if err != nil {
			return fmt.Errorf("wait for the model: %w", err)
		}

		switch m["model_status"] {
		case "published":
			return nil
		case "publishing", "building":
		default:
			return fmt.Errorf("the model is %v: %v", m["model_status"], m["error_msg"])
		}

		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // stopped while starting
		}
	}
}

func (d *deployer) find(ctx context.Context, path, list string, match func(map[string]any) bool) (map[string]any, error) {
	whole, err := d.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", list, err)
	}

	items, _ := whole[list].([]any)
	for _, it := range items {
		if m, ok := it.(map[string]any); ok && match(m) {
			return m, nil
		}
	}

	return nil, nil //nolint:nilnil // not there is an answer
}

// call asks the API within the process.
func (d *deployer) call(ctx context.Context, method, path string, body any) (map[string]any, error) {
	var buf bytes.Buffer

	if body != nil {
		if err := json.NewEncoder(&buf).Encode(body); err != nil {
			return nil, fmt.Errorf("encode: %w", err)
		}
	}

	r, err := http.NewRequestWithContext(ctx, method, "http://localhost/v1/"+d.project+path, &buf)
	if err != nil {
		return nil, fmt.Errorf("call the API: %w", err)
	}

	r.RequestURI, r.RemoteAddr = r.URL.RequestURI(), "127.0.0.1:0"
	r.Header.Set("Content-Type", "application/json")

	w := &capture{status: http.StatusOK, header: http.Header{}}
	d.handler.ServeHTTP(w, r)

	out := map[string]any{}
	if err := json.Unmarshal(w.body.Bytes(), &out); err != nil && w.status < http.StatusBadRequest {
		return nil, fmt.Errorf("read the answer: %w", err)
	}

	if w.status >= http.StatusBadRequest {
		return nil, errors.New(fmt.Sprint(out["error_code"], ": ", out["error_msg"]))
	}

	return out, nil
}

// capture is a response writer that keeps the answer.
type capture struct {
	status int
	header http.Header
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (c *capture) Header() http.Header { return c.header }

// WriteHeader implements http.ResponseWriter.
func (c *capture) WriteHeader(status int) { c.status = status }

// Write implements http.ResponseWriter.
func (c *capture) Write(p []byte) (int, error) { return c.body.Write(p) } //nolint:wrapcheck // a buffer does not fail
