package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
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
func (b *bench) alone(dir string, flags ...string) (*process, string, error) {
	binary := firstOf(b.runtime, runtimeBinary)
	if _, err := os.Stat(binary); err != nil {
		return nil, "", fmt.Errorf("run \"make build\" first: %w", err)
	}

	port, err := freePort()
	if err != nil {
		return nil, "", err
	}

	address := fmt.Sprintf("127.0.0.1:%d", port)

	log := filepath.Join(dir, "out.log")

	p, err := start(b.ctx, log, binary, append([]string{
		"serve", "--package", dir, "--model", "m",
		"--listen", address, "--drain-delay", "0s", "--log-level", "warn",
	}, flags...)...)
	if err != nil {
		return nil, "", err
	}

	base := "http://" + address
	if err := p.answers(b.ctx, base+"/health"); err != nil {
		p.close()

		if said, err := os.ReadFile(log); err == nil && len(said) > 0 {
			return nil, "", fmt.Errorf("the worker does not serve: %s", tail(said))
		}

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
