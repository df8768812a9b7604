package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
)

// manage calls the management API of the project.
func (s *system) manage(ctx context.Context, method, path string, body, into any) error {
	token, err := s.run(ctx, "token", "create")
	if err != nil {
		return err
	}

	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}

	req, err := http.NewRequestWithContext(ctx, method, s.control+"/v1/"+s.project+path, bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}

	req.Header.Set("X-Auth-Token", strings.TrimSpace(string(token)))
	req.Header.Set("Content-Type", "application/json")

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only

	const most = 1 << 20

	answer, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil || resp.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: HTTP %s %s %w", method, path, resp.Status, answer, err)
	}

	if into == nil {
		return nil
	}

	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}

	return nil
}

// upgrade replaces the model of a service while requests arrive at a fixed rate.
func (b *bench) upgrade() error {
	s, _, err := b.fresh("upgrade")
	if err != nil {
		return err
	}
	defer s.close()

	id, err := s.service(b.ctx, "upgraded", "digits")
	if err != nil {
		return err
	}

	next, err := s.nextVersion(b.ctx)
	if err != nil {
		return err
	}

	const rate = 200

	length := max(2*b.duration, 10*time.Second)
	t := b.digits(s, id, 1, 1)

	before, _, err := b.steady(&t, s, rate, b.duration)
	if err != nil {
		return err
	}

	took := make(chan upgradeResult, 1)

	go func() {
		<-time.After(time.Second)

		took <- s.replace(b.ctx, id, next)
	}()

	during, cpu, err := b.steady(&t, s, rate, length)
	if err != nil {
		return err
	}

	u := <-took
	if u.err != nil {
		return u.err
	}

	quiet := before.Latency.Quantile
	row := func(name string, r *loadtest.Result) []string {
		return []string{
			name, strconv.FormatInt(r.Requests, 10), strconv.FormatInt(r.Failed, 10), micros(float64(r.Latency.Quantile(0.5)) / 1e3),
			micros(float64(r.Latency.Quantile(0.99)) / 1e3), micros(float64(r.Latency.Max()) / 1e3),
			fmt.Sprintf("%.2f", float64(r.Latency.Quantile(0.99))/float64(max(quiet(0.99), 1))),
		}
	}

	b.report.table([]string{"", "requests", "failed", "p50", "p99", "max", "p99, ratio"}, [][]string{row("steady", before), row("with an upgrade", during)})
	b.report.text("%d requests/s, open loop, of the digits model; one second after the start the service was changed from version 1.0.0 to %s. "+
		"The new version answered alone after %.1f s. CPU of Sluice a request, the upgrade included: %s.", rate, u.version, u.took.Seconds(),
		micros(float64(cpu)/1e3/float64(max(during.Requests, 1))))

	for i := range during.Errors {
		b.report.text("Failed: %d × %s.", during.Errors[i].Count, during.Errors[i].Text())
	}

	return nil
}

// steady runs an open loop with evenly spaced arrivals.
func (b *bench) steady(t *target, s *system, rate float64, d time.Duration) (*loadtest.Result, time.Duration, error) {
	plan, err := t.plan(d)
	if err != nil {
		return nil, 0, err
	}

	plan.Rate, plan.Shape, plan.Concurrency = rate, loadtest.Constant, 1000
	cpu := s.cpu()

	res, err := loadtest.Run(b.ctx, plan)
	if err != nil {
		return nil, 0, fmt.Errorf("open loop: %w", err)
	}

	return res, s.cpu() - cpu, nil
}

// nextVersion publishes the sample model again under another version.
func (s *system) nextVersion(ctx context.Context) (string, error) {
	const version = "1.0.1"

	dir, err := filepath.Abs("configs/models/digits")
	if err != nil {
		return "", fmt.Errorf("next version: %w", err)
	}

	out, err := s.run(ctx, "model", "create", "digits", dir, "--version", version, "-o", "json")
	if err != nil {
		return "", err
	}

	var made struct {
		ID string `json:"model_id"`
	}

	if i := strings.IndexByte(string(out), '{'); i < 0 || json.Unmarshal(out[i:], &made) != nil || made.ID == "" {
		return "", fmt.Errorf("model create tells no id: %s", out)
	}

	return made.ID, nil
}

type upgradeResult struct {
	took    time.Duration
	version string
	err     error
}

// replace changes the model of a service and waits until only the new one runs.
func (s *system) replace(ctx context.Context, service, model string) (u upgradeResult) {
	const patience = time.Minute

	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	began := time.Now()

	u.err = s.manage(ctx, http.MethodPut, "/services/"+service, map[string]any{"config": []any{map[string]any{
		"model_id": model, "weight": 100, "specification": "local.cpu", "instance_count": 1,
	}}}, nil)

	if u.err == nil {
		u.version, u.err = s.answersWithout(ctx, service, "digits/1.0.0")
		u.took = time.Since(began)
	}

	return u
}

// answersWithout waits until many answers in a row come from another version than the old one, and returns that.
func (s *system) answersWithout(ctx context.Context, service, old string) (string, error) {
	const enough = 20

	for others := 0; ; {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.edge+"/v1/infers/"+service+"/v2/models/digits/ready", http.NoBody)
		if err != nil {
			return "", fmt.Errorf("ask for the version: %w", err)
		}

		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", fmt.Errorf("ask for the version: %w", err)
		}

		resp.Body.Close() //nolint:errcheck // only the head counts

		model := resp.Header.Get("X-Sluice-Model")
		if model == "" || model == old {
			others = 0
		} else if others++; others == enough {
			return strings.TrimPrefix(model, "digits/"), nil
		}

		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return "", fmt.Errorf("the upgrade does not end: %w", ctx.Err())
		}
	}
}

// arrival measures how soon changes reach the edge.
func (b *bench) arrival() ([][]string, error) {
	s, err := b.system()
	if err != nil {
		return nil, err
	}

	if _, err := s.findEcho(b); err != nil {
		return nil, err
	}

	var rows [][]string

	for _, c := range []struct{ name, model, method, path string }{
		{"a service in front of a server that runs", "echo", http.MethodPost, ""},
		{"a service with a worker of its own", "digits", http.MethodGet, "/v2/models/digits/ready"},
	} {
		var list []float64

		for i := range b.rounds {
			began := time.Now()

			id, err := s.service(b.ctx, fmt.Sprintf("reload-%s-%d", c.model, i), c.model)
			if err != nil {
				return nil, err
			}

			if err := answersTo(b.ctx, c.method, s.edge+"/v1/infers/"+id+c.path); err != nil {
				return nil, err
			}

			list = append(list, time.Since(began).Seconds())

			if _, err := s.run(b.ctx, "service", "delete", id); err != nil {
				return nil, err
			}
		}

		rows = append(rows, []string{c.name + ", until it answers", fmt.Sprintf("%.2f", mean(list)), seconds(list)})
	}

	return rows, nil
}

// findEcho returns the service in front of the upstream, made if it does not exist yet.
func (s *system) findEcho(b *bench) (string, error) {
	if id, err := s.findService(b.ctx, "echo", ""); err == nil {
		return id, nil
	}

	return s.external(b.ctx, "echo", "http://"+b.echo.address, filepath.Join(b.dir, "echo"))
}

// bootstrap reads what the first start made.
func (s *system) bootstrap() error {
	data, err := os.ReadFile(filepath.Join(s.data, "bootstrap.json"))
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}

	var boot struct {
		Project string `json:"project_id"`
	}

	if err := json.Unmarshal(data, &boot); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}

	s.project = boot.Project

	return nil
}
