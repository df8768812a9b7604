package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

// contest holds a worker under load over HTTP against a loop that does nothing but run the same model on the same device.
type contest struct {
	name  string
	model *onnxgen.Model
	loops int // and executors
	batch int // rows; 0 means the best of the loop
	rows  int // in a request

	provider string // with nothing to fall back to; "" means the default
	device   int
	library  string // ONNX Runtime; "" means where set-up puts it
}

// verdict is what came out. Rates are in rows/s, of each round.
type verdict struct {
	batch      int
	alone      float64 // rows/s of the loop with batches of one
	bare, ours []float64
	p50        []float64 // µs
	runs       runStats
	failed     int64
}

// config is that of a package that asks for exactly what the loop has.
func (c *contest) config(batch int) (string, error) {
	type execution struct {
		Provider string `json:"provider"`
		Device   int    `json:"device_id"`
		Strict   bool   `json:"strict"`
	}

	var doc struct {
		Serving struct {
			Batch     int        `json:"max_batch_size,omitempty"`
			Instances int        `json:"instances"`
			Execution *execution `json:"execution,omitempty"`
		} `json:"serving"`
	}

	doc.Serving.Batch, doc.Serving.Instances = batch, c.loops
	if c.provider != "" {
		doc.Serving.Execution = &execution{c.provider, c.device, true}
	}

	data, err := json.Marshal(doc)
	if err != nil {
		return "", fmt.Errorf("model package: %w", err)
	}

	return string(data), nil
}

// contest runs both in turn, round after round.
func (b *bench) contest(c contest) (*verdict, error) {
	v := &verdict{batch: c.batch}

	dir, err := b.model(c.name, "{}", c.model)
	if err != nil {
		return nil, err
	}

	file := filepath.Join(dir, "model.onnx")

	if v.batch == 0 {
		if err := b.best(&c, v, file); err != nil {
			return nil, err
		}
	}

	config, err := c.config(v.batch)
	if err != nil {
		return nil, err
	}

	if dir, err = b.model(c.name, config, c.model); err != nil {
		return nil, err
	}

	var flags []string
	if c.library != "" {
		flags = []string{"--onnxruntime", c.library}
	}

	p, base, err := b.alone(dir, flags...)
	if err != nil {
		return nil, err
	}
	defer p.close()

	if err := b.same(base, &c); err != nil {
		return nil, err
	}

	body, header := rows(c.rows)
	t := target{name: c.name, url: base + "/v2/models/m/infer", body: body, server: p, concurrency: max(3*c.loops*v.batch/c.rows, 1)}
	t.fields = append(t.fields, field("Content-Type", "application/octet-stream"), field("Inference-Header-Content-Length", header))

	for range b.rounds {
		rates, err := b.bare(&c, file, []int{v.batch}, b.duration/time.Duration(b.rounds))
		if err != nil {
			return nil, err
		}

		v.bare = append(v.bare, rates[v.batch])

		if err := b.press(&t, base, v); err != nil {
			return nil, err
		}
	}

	return v, nil
}

// best finds the batch size at which the loop is fastest.
func (b *bench) best(c *contest, v *verdict, file string) error {
	rates, err := b.bare(c, file, []int{1, 4, 16, 64}, min(time.Second, b.duration/time.Duration(b.rounds)))
	if err != nil {
		return err
	}

	v.alone, v.batch = rates[1], 1

	for n, rate := range rates {
		if rate > rates[v.batch] {
			v.batch = n
		}
	}

	return nil
}

// same makes sure that the worker runs the model where the loop does.
func (b *bench) same(base string, c *contest) error {
	data, err := get(b.ctx, base+"/v2/models/m/config")
	if err != nil {
		return err
	}

	var doc struct {
		Parameters struct {
			Provider struct {
				Value string `json:"string_value"`
			} `json:"provider"`
		} `json:"parameters"`
	}

	if err := json.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("configuration of the model: %w: %s", err, tail(data))
	}

	if got := doc.Parameters.Provider.Value; c.provider != "" && got != c.provider {
		return fmt.Errorf("the worker runs the model with the provider %q, want %q", got, c.provider)
	}

	return nil
}

// press loads a worker until it is in its stride and measures from the end of one batch to the end of another one:
// a window of fixed length would count a batch that lasts beyond it as nothing.
func (b *bench) press(t *target, base string, v *verdict) error {
	each := b.duration / time.Duration(b.rounds)

	plan, err := t.plan(each)
	if err != nil {
		return err
	}

	plan.Warmup = min(each/2, 2*time.Second)

	type end struct {
		res *loadtest.Result
		err error
	}

	ended := make(chan end, 1)

	go func() {
		res, err := loadtest.Run(b.ctx, plan)
		ended <- end{res, err}
	}()

	var at [2]runStats

	for i, wait := range []time.Duration{plan.Warmup, each} {
		select {
		case <-time.After(wait):
		case <-b.ctx.Done():
			<-ended

			return b.ctx.Err() //nolint:wrapcheck // interrupted
		}

		if at[i], err = b.runs(base); err != nil {
			break // the load ends by itself
		}
	}

	e := <-ended
	if err := errors.Join(err, e.err); err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}

	took := at[1].last.Sub(at[0].last)
	if took <= 0 {
		return fmt.Errorf("%s: no batch ended in %s; ask for a longer -duration", t.name, each)
	}

	v.runs.add(at[1], at[0])
	v.ours = append(v.ours, (at[1].rows-at[0].rows)/took.Seconds())
	v.p50 = append(v.p50, float64(e.res.Latency.Quantile(0.5))/1e3)
	v.failed += e.res.Failed

	return nil
}

var bareRate = regexp.MustCompile(`rows=(\d+)\S*\s+\d+\s+[0-9.]+ ns/op\s+([0-9.]+) rows/s`)

// bare runs the loop that does nothing but run the model and gives rows/s by batch size.
func (b *bench) bare(c *contest, file string, sizes []int, d time.Duration) (map[int]float64, error) {
	if b.loop == "" {
		test := filepath.Join(b.dir, "ort.test")

		if out, err := exec.CommandContext(b.ctx, "go", "test", "-c", "-o", test, "./runtime/ort").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build the bare loop: %w: %s", err, tail(out))
		}

		b.loop = test
	}

	env := append(os.Environ(), "SLUICE_BENCH_MODEL="+file, "SLUICE_BENCH_LOOPS="+strconv.Itoa(c.loops),
		"SLUICE_BENCH_PROVIDER="+c.provider, "SLUICE_BENCH_DEVICE="+strconv.Itoa(c.device))
	if c.library != "" {
		env = append(env, "ONNXRUNTIME_LIB="+c.library)
	}

	rates := map[int]float64{}

	for _, n := range sizes {
		cmd := exec.CommandContext(b.ctx, b.loop, "-test.run", "^$", "-test.bench", "^BenchmarkBare$", "-test.benchtime", d.String()) //nolint:gosec // our own test binary
		cmd.Env = slices.Concat(env, []string{"SLUICE_BENCH_ROWS=" + strconv.Itoa(n)})

		out, err := cmd.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("bare loop: %w: %s", err, tail(out))
		}

		m := bareRate.FindSubmatch(out)
		if m == nil || string(m[1]) != strconv.Itoa(n) {
			return nil, fmt.Errorf("bare loop: no rate of batches of %d in %s", n, tail(out))
		}

		if rates[n], err = strconv.ParseFloat(string(m[2]), 64); err != nil {
			return nil, fmt.Errorf("bare loop: %w: %s", err, tail(out))
		}
	}

	return rates, nil
}

// saturation compares a worker with the bare loop at its best batch size.
func (b *bench) saturation() error {
	const steps = 800 // two milliseconds and more a row, in a batch too

	work := onnxgen.Work(1, width, steps)

	var table [][]string

	for _, loops := range []int{1, runtime.NumCPU()} {
		v, err := b.contest(contest{name: fmt.Sprintf("saturation-%d", loops), model: work, loops: loops, rows: 1})
		if err != nil {
			return err
		}

		b.report.hold(fmt.Sprintf("worker at saturation, executors: %d: rows/s / bare loop's", loops), mean(v.ours)/mean(v.bare), saturated, true)

		table = append(table, append([]string{
			strconv.Itoa(loops), strconv.Itoa(v.batch), fmt.Sprintf("%.2f", 1e3*float64(loops)/v.alone),
		}, v.cells(loops)...))

		if runtime.NumCPU() == 1 {
			break
		}
	}

	b.report.table(append([]string{"executors", "batch", "bare loop, ms a row alone"}, verdictColumns()...), table)
	b.report.text("A chain of products with a matrix of %d × %d, %d times. Requests of one row, binary V2, from the load tool on the same machine; "+
		"with as many executors as processors the tool and the server take their time from the model, which the bare loop has for itself. %s", width, width, steps, howPressed)

	return nil
}

// saturated is what a worker under load has to reach of the loop's rate.
const saturated = 0.95

const howPressed = "The rate of the worker is that from the end of one batch to the end of a later one, under load: " +
	"a window of fixed length would count a batch that lasts beyond it as nothing."

func verdictColumns() []string {
	return []string{"bare loop, rows/s", "worker over HTTP, rows/s", "ratio", "rows a batch", "time in a run, ratio", "p50", "failed"}
}

// cells are those of verdictColumns.
func (v *verdict) cells(loops int) []string {
	return []string{
		number(mean(v.bare)), number(mean(v.ours)), ratio(v.ours, v.bare), fmt.Sprintf("%.1f", v.runs.rows/max(v.runs.count, 1)),
		fmt.Sprintf("%.2f", v.runs.nanos/1e9/max(v.runs.rows, 1)*mean(v.bare)/float64(loops)), micros(mean(v.p50)), strconv.FormatInt(v.failed, 10),
	}
}

// runStats are what a worker counts of its runs.
type runStats struct {
	count, rows, nanos float64
	last               time.Time // end of the last one
}

func (r *runStats) add(after, before runStats) {
	r.count += after.count - before.count
	r.rows += after.rows - before.rows
	r.nanos += after.nanos - before.nanos
}

func (b *bench) runs(base string) (runStats, error) {
	data, err := get(b.ctx, base+"/v2/models/m/stats")
	if err != nil {
		return runStats{}, err
	}

	var doc struct {
		Models []struct {
			Last    int64 `json:"last_inference"`
			Batches []struct {
				Size int `json:"batch_size"`
				Run  struct {
					Count float64 `json:"count"`
					NS    float64 `json:"ns"`
				} `json:"compute_infer"`
			} `json:"batch_stats"`
		} `json:"model_stats"`
	}

	if err := json.Unmarshal(data, &doc); err != nil || len(doc.Models) == 0 {
		return runStats{}, fmt.Errorf("statistics of the worker: %s", data)
	}

	sum := runStats{last: time.UnixMilli(doc.Models[0].Last)}

	for _, l := range doc.Models[0].Batches {
		sum.count += l.Run.Count
		sum.rows += l.Run.Count * float64(l.Size)
		sum.nanos += l.Run.NS
	}

	return sum, nil
}
