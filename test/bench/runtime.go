package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

const runtimeBinary = "bin/sluice-runtime"

// model writes a generated model, with its configuration, as a package.
func (b *bench) model(name, config string, m *onnxgen.Model) (string, error) {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("model package: %w", err)
	}

	err := errors.Join(
		os.WriteFile(filepath.Join(dir, "model.onnx"), m.Bytes(), 0o600),
		os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600),
	)
	if err != nil {
		return "", fmt.Errorf("model package: %w", err)
	}

	return dir, nil
}

// alone starts a worker by itself, over HTTP, that serves a package as "m".
func (b *bench) alone(dir string) (*process, string, error) {
	if _, err := os.Stat(runtimeBinary); err != nil {
		return nil, "", fmt.Errorf("run \"make build\" first: %w", err)
	}

	port, err := freePort()
	if err != nil {
		return nil, "", err
	}

	address := fmt.Sprintf("127.0.0.1:%d", port)

	p, err := start(b.ctx, filepath.Join(dir, "out.log"), runtimeBinary, "serve", "--package", dir, "--model", "m",
		"--listen", address, "--drain-delay", "0s", "--log-level", "warn")
	if err != nil {
		return nil, "", err
	}

	base := "http://" + address
	if err := answers(b.ctx, base+"/health"); err != nil {
		p.close()

		return nil, "", err
	}

	return p, base, nil
}

// width of a row of the models here, in floats.
const width = 512

// rows makes a binary V2 request of the generated models.
func rows(n int) (body []byte, header string) {
	raw := make([]byte, n*width*4)
	head := fmt.Sprintf(`{"inputs":[{"name":"x","shape":[%d,%d],"datatype":"FP32","parameters":{"binary_data_size":%d}}],`+
		`"outputs":[{"name":"y","parameters":{"binary_data":true}}]}`, n, width, len(raw))

	return append([]byte(head), raw...), strconv.Itoa(len(head))
}

var bareRate = regexp.MustCompile(`rows=(\d+)\S*\s+\d+\s+[0-9.]+ ns/op\s+([0-9.]+) rows/s`)

// bare runs the loop that does nothing but run the model and gives rows/s by batch size.
func (b *bench) bare(test, model, pattern string, loops int, d time.Duration) (map[int]float64, error) {
	cmd := exec.CommandContext(b.ctx, test, "-test.run", "^$", "-test.bench", "^BenchmarkBare$/"+pattern, "-test.benchtime", d.String()) //nolint:gosec // our own test binary
	cmd.Dir = filepath.Join("runtime", "ort")
	cmd.Env = append(os.Environ(), "SLUICE_BENCH_MODEL="+model, "SLUICE_BENCH_LOOPS="+strconv.Itoa(loops))

	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("bare loop: %w: %s", err, tail(out))
	}

	rates := map[int]float64{}

	for _, m := range bareRate.FindAllSubmatch(out, -1) {
		n, err1 := strconv.Atoi(string(m[1]))
		rate, err2 := strconv.ParseFloat(string(m[2]), 64)

		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("bare loop: %w: %s", err, tail(out))
		}

		rates[n] = rate
	}

	if len(rates) == 0 {
		return nil, fmt.Errorf("bare loop: no rates in %s", tail(out))
	}

	return rates, nil
}

// saturation compares a worker under load over HTTP with the bare loop at its best batch size, in turn.
func (b *bench) saturation() error {
	test := filepath.Join(b.dir, "ort.test")

	if out, err := exec.CommandContext(b.ctx, "go", "test", "-c", "-o", test, "./runtime/ort").CombinedOutput(); err != nil {
		return fmt.Errorf("build the bare loop: %w: %s", err, tail(out))
	}

	const steps = 800 // two milliseconds and more a row, in a batch too

	work := onnxgen.Work(1, width, steps)

	var table [][]string

	for _, loops := range []int{1, runtime.NumCPU()} {
		line, err := b.saturate(test, work, loops)
		if err != nil {
			return err
		}

		table = append(table, line)

		if runtime.NumCPU() == 1 {
			break
		}
	}

	b.report.table([]string{"executors", "batch", "bare loop, ms a row alone", "bare loop, rows/s", "worker over HTTP, rows/s", "ratio", "rows a batch", "time in a run, ratio", "p50", "failed"}, table)
	b.report.text("A chain of products with a matrix of %d × %d, %d times. Requests of one row, binary V2, from the load tool on the same machine; "+
		"with as many executors as processors the tool and the server take their time from the model, which the bare loop has for itself.", width, width, steps)

	return nil
}

func (b *bench) saturate(test string, work *onnxgen.Model, loops int) ([]string, error) {
	name := fmt.Sprintf("saturation-%d", loops)

	dir, err := b.model(name, "{}", work)
	if err != nil {
		return nil, err
	}

	model := filepath.Join(dir, "model.onnx")

	first, err := b.bare(test, model, ".", loops, time.Second)
	if err != nil {
		return nil, err
	}

	best := 1
	for n, rate := range first {
		if rate > first[best] {
			best = n
		}
	}

	config := fmt.Sprintf(`{"serving":{"max_batch_size":%d,"instances":%d}}`, best, loops)
	if dir, err = b.model(name, config, work); err != nil {
		return nil, err
	}

	p, base, err := b.alone(dir)
	if err != nil {
		return nil, err
	}
	defer p.close()

	body, header := rows(1)
	t := target{name: name, url: base + "/v2/models/m/infer", body: body, server: p, concurrency: 3 * loops * best}
	t.fields = append(t.fields, field("Content-Type", "application/octet-stream"), field("Inference-Header-Content-Length", header))

	each := b.duration / time.Duration(b.rounds)
	solo, single := []float64{}, *b
	single.rounds = 1
	single.duration = each

	var (
		ours measured
		runs runStats
	)

	for range b.rounds {
		rates, err := b.bare(test, model, fmt.Sprintf("^rows=%d$", best), loops, each)
		if err != nil {
			return nil, err
		}

		before, err := b.runs(base)
		if err != nil {
			return nil, err
		}

		list, err := single.turns(t)
		if err != nil {
			return nil, err
		}

		after, err := b.runs(base)
		if err != nil {
			return nil, err
		}

		runs.add(after, before)

		solo = append(solo, rates[best])
		ours.rates, ours.p50 = append(ours.rates, list[0].rates...), append(ours.p50, list[0].p50...)
		ours.failed += list[0].failed
	}

	b.report.hold(fmt.Sprintf("worker at saturation, executors: %d: rows/s / bare loop's", loops), mean(ours.rates)/mean(solo), 0.95, true)

	return []string{
		strconv.Itoa(loops), strconv.Itoa(best), fmt.Sprintf("%.2f", 1e3*float64(loops)/first[1]), number(mean(solo)), number(mean(ours.rates)),
		ratio(ours.rates, solo), fmt.Sprintf("%.1f", runs.rows/max(runs.count, 1)), fmt.Sprintf("%.2f", runs.nanos/1e9/max(runs.rows, 1)*mean(solo)/float64(loops)), micros(mean(ours.p50)), strconv.FormatInt(ours.failed, 10),
	}, nil
}

// runStats are what a worker counts of its runs.
type runStats struct{ count, rows, nanos float64 }

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

	var sum runStats

	for _, l := range doc.Models[0].Batches {
		sum.count += l.Run.Count
		sum.rows += l.Run.Count * float64(l.Size)
		sum.nanos += l.Run.NS
	}

	return sum, nil
}

// reload loads, uses and unloads a model over and over and watches the memory of the worker.
func (b *bench) reload() error {
	const (
		cycles = 1000
		hidden = 512
		out    = 16
	)

	dir, err := b.model("reload", "{}", onnxgen.MLP(1, width, hidden, hidden, out))
	if err != nil {
		return err
	}

	p, base, err := b.alone(dir)
	if err != nil {
		return err
	}
	defer p.close()

	body, header := rows(1)
	at := map[int]int64{}
	began := time.Now()

	for i := range cycles + 1 {
		if i > 0 {
			for _, verb := range []string{"unload", "load"} {
				if err := b.post(base+"/v2/repository/models/m/"+verb, nil, ""); err != nil {
					return err
				}
			}
		}

		if err := b.post(base+"/v2/models/m/infer", body, header); err != nil {
			return err
		}

		at[i] = resident(p.cmd.Process.Pid)
	}

	var table [][]string

	for _, i := range []int{0, 1, 10, 100, 200, 500, cycles} {
		table = append(table, []string{
			strconv.Itoa(i), fmt.Sprintf("%.1f MB", float64(at[i])/(1<<20)), fmt.Sprintf("%+.1f %%", 100*(float64(at[i])/float64(at[0])-1)),
		})
	}

	b.report.table([]string{"cycles", "resident", "against the first load"}, table)
	b.report.text("A worker over HTTP; each cycle unloads the model (2 MB of weights), loads it and runs a request: %.0f ms.",
		float64(time.Since(began).Milliseconds())/cycles)

	return nil
}

// post expects the status 200.
func (b *bench) post(url string, body []byte, header string) error {
	req, err := http.NewRequestWithContext(b.ctx, http.MethodPost, url, strings.NewReader(string(body)))
	if err != nil {
		return fmt.Errorf("ask the worker: %w", err)
	}

	if header != "" {
		req.Header.Set("Inference-Header-Content-Length", header)
	}

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the worker: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only

	text, err := io.ReadAll(resp.Body)

	switch {
	case err != nil:
		return fmt.Errorf("ask the worker: %w", err)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the worker answers %d to %s: %s", resp.StatusCode, url, strconv.Quote(tail(text)))
	}

	return nil
}
