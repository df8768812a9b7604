package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// edge compares the whole edge with plain proxies, all in front of the same upstream.
func (b *bench) edge() error {
	s, err := b.system()
	if err != nil {
		return err
	}

	id, err := s.findEcho(b)
	if err != nil {
		return err
	}

	body := []byte(`{"instances":[[1,2,3,4]]}`)
	targets := []target{{name: "upstream itself", url: "http://" + b.echo.address + "/", body: body}}

	started, err := b.startAll(
		func() (*proxy, error) { return b.nginx(b.echo.address) },
		func() (*proxy, error) { return b.haproxy(b.echo.address) })
	defer closeAll(started)

	if err != nil {
		return err
	}

	for _, p := range started {
		targets = append(targets, target{name: p.name, url: p.url, body: body, server: p.process})
	}

	targets = append(targets, target{name: "sluice, service open to all", url: s.edge + "/v1/infers/" + id, body: body, server: s.process})

	list, err := b.turns(targets...)
	if err != nil {
		return err
	}

	b.comparison(list[1:])
	b.report.text("32 callers, bodies of %d bytes, the same upstream (%s requests/s by itself). The CPU is that of the proxy's processes; "+
		"that of Sluice includes the control plane and etcd. Sluice also authorizes, limits, picks and records.", len(body), number(mean(list[0].rates)))

	return nil
}

// doors runs the edge's own suite, which looks closer at the proxies, and takes its report over.
func (b *bench) doors() error {
	const patience = 10 * time.Minute

	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()

	out := filepath.Join(b.dir, "edge.md")
	each := max(b.duration/time.Duration(b.rounds), time.Second).Round(time.Second)

	cmd := exec.CommandContext(ctx, "go", "run", "./test/bench/edge", "-bin", filepath.Dir(binary), "-out", out, //nolint:gosec // our own command
		"-length", each.String(), "-rounds", strconv.Itoa(b.rounds))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second

	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go run ./test/bench/edge: %w: %s", err, tail(said))
	}

	data, err := os.ReadFile(out)
	if err != nil {
		return fmt.Errorf("the edge's suite: %w", err)
	}

	if err := b.report.holdDoors(data); err != nil {
		return err
	}

	// Its headings go one level down, and its title is that of the part.
	for line := range strings.Lines(string(data)) {
		switch {
		case strings.HasPrefix(line, "# "):
		case strings.HasPrefix(line, "#"):
			b.report.body.WriteString("#" + line)
		default:
			b.report.body.WriteString(line)
		}
	}

	b.report.body.WriteString("\n")

	return nil
}

// inference makes a binary V2 request for the sample model.
func inference(rows int) (body []byte, header string) {
	const pixels = 8 * 8

	raw := make([]byte, rows*pixels*4)
	head := fmt.Sprintf(`{"inputs":[{"name":"image","shape":[%d,1,8,8],"datatype":"FP32","parameters":{"binary_data_size":%d}}]}`, rows, len(raw))

	return append([]byte(head), raw...), strconv.Itoa(len(head))
}

var nsPerOp = regexp.MustCompile(`rows=(\d+)\S*\s+\d+\s+([0-9.]+) ns/op`)

// worker compares requests through everything with the bare loop over the same model.
func (b *bench) worker() error {
	s, err := b.system()
	if err != nil {
		return err
	}

	id, err := s.findService(b.ctx, "digits-open", "digits")
	if err != nil {
		return err
	}

	cmd := exec.CommandContext(b.ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkDigits$", "-benchtime", "500ms", "./runtime/ort")

	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("bare loop: %w: %s", err, tail(out))
	}

	bare := map[string]float64{}
	for _, m := range nsPerOp.FindAllSubmatch(out, -1) {
		if v, err := strconv.ParseFloat(string(m[2]), 64); err == nil {
			bare[string(m[1])] = v / 1e3
		}
	}

	var rows [][]string

	for _, n := range []int{1, 8} {
		t := b.digits(s, id, n, 1)

		list, err := b.turns(t)
		if err != nil {
			return err
		}

		base := bare[strconv.Itoa(n)]
		rows = append(rows, []string{
			strconv.Itoa(n), micros(base), micros(mean(list[0].p50)), fmt.Sprintf("%.2f", mean(list[0].p50)/base),
			micros(mean(list[0].cpus)), fmt.Sprintf("%.2f", mean(list[0].cpus)/base), strconv.FormatInt(list[0].failed, 10),
		})
	}

	b.report.table([]string{"rows", "bare loop", "request, p50", "ratio", "CPU of Sluice a request", "ratio", "failed"}, rows)
	b.report.text("The digits model, binary V2 tensors, one caller, through edge, link, codec and batcher, against `BenchmarkDigits` of `runtime/ort`, " +
		"which runs the model in a loop and does nothing else.")

	return nil
}

func (b *bench) digits(s *system, id string, rows, callers int) target {
	body, header := inference(rows)

	t := target{
		name: "digits", url: s.edge + "/v1/infers/" + id + "/v2/models/digits/infer", body: body, server: s.process, concurrency: callers,
	}
	t.fields = append(t.fields, field("Content-Type", "application/octet-stream"), field("Inference-Header-Content-Length", header))

	return t
}

// batching runs the sample model with more and more callers.
func (b *bench) batching() error {
	s, err := b.system()
	if err != nil {
		return err
	}

	id, err := s.findService(b.ctx, "digits-open", "digits")
	if err != nil {
		return err
	}

	var rows [][]string

	for _, callers := range []int{1, 2, 4, 8, 16, 32, 64, 128} {
		before, err := stats(b, s, id)
		if err != nil {
			return err
		}

		list, err := b.turns(b.digits(s, id, 1, callers))
		if err != nil {
			return err
		}

		after, err := stats(b, s, id)
		if err != nil {
			return err
		}

		m := &list[0]
		rows = append(rows, []string{
			strconv.Itoa(callers), number(mean(m.rates)), micros(mean(m.p50)), micros(mean(m.p99)), micros(mean(m.cpus)),
			fmt.Sprintf("%.2f", float64(after[0]-before[0])/float64(max(after[1]-before[1], 1))), strconv.FormatInt(m.failed, 10),
		})
	}

	b.report.table([]string{"callers", "requests/s", "p50", "p99", "CPU a request", "rows a batch", "failed"}, rows)

	return nil
}

// stats reads inferences and executions of the sample model.
func stats(b *bench, s *system, id string) ([2]int64, error) {
	data, err := get(b.ctx, s.edge+"/v1/infers/"+id+"/v2/models/digits/stats")
	if err != nil {
		return [2]int64{}, err
	}

	var doc struct {
		Models []struct {
			Inferences int64 `json:"inference_count"`
			Executions int64 `json:"execution_count"`
		} `json:"model_stats"`
	}

	if err := json.Unmarshal(data, &doc); err != nil || len(doc.Models) == 0 {
		return [2]int64{}, fmt.Errorf("statistics of the worker: %s", data)
	}

	return [2]int64{doc.Models[0].Inferences, doc.Models[0].Executions}, nil
}

// start measures the way from the command to the line "sluice ready".
func (b *bench) start() error {
	var cold, warm []float64

	for i := range b.rounds {
		data := filepath.Join(b.dir, fmt.Sprintf("start-%d", i))

		for _, list := range []*[]float64{&cold, &warm} {
			s, err := startSystem(b.ctx, data)
			if err != nil {
				return err
			}

			*list = append(*list, s.took.Seconds())
			s.close()
		}
	}

	rows, err := b.arrival()
	if err != nil {
		return err
	}

	b.report.table([]string{"what", "seconds", "of each round"}, append([][]string{
		{"start with an empty data directory, until a prediction would succeed", fmt.Sprintf("%.2f", mean(cold)), seconds(cold)},
		{"start with the data of the last run", fmt.Sprintf("%.2f", mean(warm)), seconds(warm)},
	}, rows...))
	b.report.text("The services are made by `sluice service create` in a running system; its own start is part of the time.")

	return nil
}

func seconds(list []float64) string {
	parts := make([]string, 0, len(list))
	for _, v := range list {
		parts = append(parts, fmt.Sprintf("%.2f", v))
	}

	return strings.Join(parts, ", ")
}

// payload sends bodies of growing size through the edge and through nginx.
func (b *bench) payload() error {
	s, err := b.system()
	if err != nil {
		return err
	}

	id, err := s.findEcho(b)
	if err != nil {
		return err
	}

	n, err := b.nginx(b.echo.address)
	if err != nil {
		return err
	}
	defer n.close()

	var (
		rows [][]string
		all  []measured
	)

	for _, size := range []int{1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20} {
		body := bytes.Repeat([]byte("x"), size)

		list, err := b.turns(
			target{name: "nginx", url: n.url, body: body, server: n.process, concurrency: 8},
			target{name: "sluice", url: s.edge + "/v1/infers/" + id, body: body, server: s.process, concurrency: 8},
		)
		if err != nil {
			return err
		}

		rows = append(rows, []string{
			strconv.Itoa(size>>10) + " KiB", number(mean(list[0].rates)), number(mean(list[1].rates)), ratio(list[1].rates, list[0].rates),
			micros(mean(list[0].cpus)), micros(mean(list[1].cpus)), ratio(list[1].cpus, list[0].cpus),
			strconv.FormatInt(list[0].failed+list[1].failed, 10),
		})
		all = append(all, list...)
	}

	b.report.table([]string{"body", "nginx/s", "sluice/s", "ratio", "nginx CPU", "sluice CPU", "ratio", "failed"}, rows)
	b.report.text("Echo: each body travels both ways. 8 callers.")
	b.failures(all...)

	return nil
}
