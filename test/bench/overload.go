package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

// flood offers a worker several times what it can do, over HTTP.
type flood struct {
	factor   float64
	deadline time.Duration
	steps    int // of the model
}

// withstood is what came out of a flood. Rates are in requests of one row a second.
type withstood struct {
	capacity, offered, good []float64
	late                    int64 // answers after their deadline, by the clock of the client
	refused                 int64
	usual, slowest          time.Duration // of the refusals, half and 99 of 100
	errors                  map[string]int64
	hint                    string // Retry-After of a refusal
}

// overload counts the answers within their deadline at three times the capacity.
func (b *bench) overload() error {
	f := flood{factor: 3, deadline: 300 * time.Millisecond, steps: 200}

	w, err := b.withstand(&f)
	if err != nil {
		return err
	}

	goodput := mean(w.good) / mean(w.capacity)
	b.report.hold(fmt.Sprintf("worker at %g times its capacity: answers within their deadline / capacity", f.factor), goodput, 0.9, true)

	b.report.table([]string{"capacity, rows/s", "offered/s", "answered within the deadline/s", "of the capacity", "answered late", "refused", "refusals, p50", "p99", "Retry-After"}, [][]string{{
		number(mean(w.capacity)), number(mean(w.offered)), number(mean(w.good)), ratio(w.good, w.capacity),
		strconv.FormatInt(w.late, 10), strconv.FormatInt(w.refused, 10), micros(float64(w.usual) / 1e3), micros(float64(w.slowest) / 1e3), w.hint,
	}})
	b.report.text("An open loop (Poisson) of requests of one row with `X-Sluice-Timeout-Ms: %d`. The capacity is that of a closed loop with full batches in the same round. "+
		"A refusal is the status 503: at once when the queue or the estimate says that the deadline cannot be met, and later when the queue turned out slower.", f.deadline.Milliseconds())

	for text, n := range w.errors {
		b.report.text("%d × %s.", n, text)
	}

	return nil
}

// nothing stands for the hint when nothing was refused.
const nothing = "nothing was refused"

func (b *bench) withstand(f *flood) (*withstood, error) {
	const batch = 64

	dir, err := b.model("overload", fmt.Sprintf(`{"serving":{"max_batch_size":%d}}`, batch), onnxgen.Work(1, width, f.steps))
	if err != nil {
		return nil, err
	}

	p, base, err := b.alone(dir)
	if err != nil {
		return nil, err
	}
	defer p.close()

	body, header := rows(1)
	full := target{name: "overload", url: base + "/v2/models/m/infer", body: body, server: p, concurrency: 3 * batch}
	full.fields = append(full.fields, field("Content-Type", "application/octet-stream"), field("Inference-Header-Content-Length", header))

	flooded := full
	flooded.fields = append(flooded.fields, field("X-Sluice-Timeout-Ms", strconv.FormatInt(f.deadline.Milliseconds(), 10)))

	w := &withstood{errors: map[string]int64{}}

	for range b.rounds {
		var v verdict
		if err := b.press(&full, base, &v); err != nil {
			return nil, err
		}

		w.capacity = append(w.capacity, v.ours[0])

		if err := b.flood(f, &flooded, v.ours[0], w); err != nil {
			return nil, err
		}
	}

	return w, nil
}

// flood runs one open loop, and looks at a refusal meanwhile.
func (b *bench) flood(f *flood, t *target, capacity float64, w *withstood) error {
	const connections = 2000

	each := b.duration / time.Duration(b.rounds)

	plan, err := t.plan(each)
	if err != nil {
		return err
	}

	plan.Rate, plan.Concurrency, plan.Warmup = f.factor*capacity, connections, min(each/2, time.Second)

	ctx, cancel := context.WithTimeout(b.ctx, plan.Warmup+plan.Duration)
	defer cancel()

	// Several ask, as one alone may be answered each time that it asks.
	const askers = 8

	hints := make(chan string, askers)

	for range askers {
		go func() {
			select {
			case <-time.After(plan.Warmup):
			case <-ctx.Done():
			}

			hints <- refusal(ctx, t)
		}()
	}

	res, err := loadtest.Run(b.ctx, plan)

	for range askers {
		if hint := <-hints; w.hint == "" || w.hint == nothing {
			w.hint = hint
		}
	}

	if err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}

	if res.Interrupted {
		return b.ctx.Err() //nolint:wrapcheck // interrupted
	}

	// The clock of the client has the way there and back on it.
	const way = 20 * time.Millisecond

	inTime := res.OK.CountUpTo(f.deadline + way)

	w.offered = append(w.offered, res.Rate)
	w.good = append(w.good, res.Rate*float64(inTime)/float64(max(res.Requests, 1)))
	w.late += res.OK.Count() - inTime
	w.refused += res.Failed
	w.usual = max(w.usual, res.Bad.Quantile(0.5))
	w.slowest = max(w.slowest, res.Bad.Quantile(0.99))

	for i := range res.Errors {
		w.errors[res.Errors[i].Text()] += res.Errors[i].Count
	}

	return nil
}

// refusal asks until it is refused and returns the Retry-After, or why there is none.
func refusal(ctx context.Context, t *target) string {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(t.body))
		if err != nil {
			return err.Error()
		}

		for _, f := range t.fields {
			req.Header.Set(f.Name, f.Value)
		}

		resp, err := http.DefaultClient.Do(req)
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return nothing
		}

		if err != nil {
			return err.Error()
		}

		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close() //nolint:errcheck // read only

		switch {
		case err != nil:
			return err.Error()
		case resp.StatusCode == http.StatusServiceUnavailable:
			return resp.Header.Get("Retry-After") + " s"
		}
	}
}
