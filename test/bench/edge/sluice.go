package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

// The request of every run, and the model that answers it: "y" is "x".
const (
	request   = `{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1.5,2,3.25,4]}]}`
	inferPath = "/v2/models/trivial/infer"
	columns   = 4
)

// gateway is a running Sluice and how to manage it.
type gateway struct {
	proc                    *process
	data                    string
	edge, control, ops      string
	project, token          string
	linked, foreign, pkgDir string // ids of the two services; the ONNX package
}

// startSluice starts `sluice serve` and logs in.
func (b *bed) startSluice(ctx context.Context, bin string) (*gateway, error) {
	g := &gateway{data: filepath.Join(b.dir, "data")}

	level := "warn"
	if b.logs {
		level = "info"
	}

	conf, err := b.write("sluice.yaml", "log: {level: "+level+"}\n")
	if err != nil {
		return nil, err
	}

	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start sluice: %w", err)
	}
	defer out.Close() //nolint:errcheck // only read

	g.proc, err = spawn(ctx, in, filepath.Join(bin, "sluice"), "serve", "--config", conf, "--data", g.data,
		"--edge-http", loopback+"0", "--edge-https", loopback+"0", "--control", loopback+"0", "--ops", loopback+"0")
	in.Close() //nolint:errcheck // the process has its own

	if err != nil {
		return nil, err
	}

	b.procs = append(b.procs, g.proc)

	// The pipe closes with the process if it ends before it is ready.
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "sluice ready" {
		continue
	}

	if lines.Text() != "sluice ready" {
		return nil, fmt.Errorf("sluice is not ready: %s", g.proc.out.String())
	}

	return g, g.login(ctx)
}

func (g *gateway) login(ctx context.Context) error {
	var ends struct {
		Edge    string `json:"edge_http"`
		Control string `json:"control"`
		Ops     string `json:"ops"`
	}

	var boot struct {
		Domain    string `json:"domain"`
		ProjectID string `json:"project_id"`
		User      string `json:"user"`
		Password  string `json:"password"`
	}

	for name, dst := range map[string]any{"endpoints.json": &ends, "bootstrap.json": &boot} {
		data, err := os.ReadFile(filepath.Join(g.data, name))
		if err != nil {
			return fmt.Errorf("log in: %w", err)
		}

		if err := json.Unmarshal(data, dst); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}

	g.edge, g.control, g.ops, g.project = ends.Edge, ends.Control, ends.Ops, boot.ProjectID

	head, err := g.call(ctx, http.MethodPost, g.control+"/v3/auth/tokens", map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": map[string]any{
			"name": boot.User, "password": boot.Password, "domain": map[string]any{"name": boot.Domain},
		}}},
		"scope": map[string]any{"project": map[string]any{"id": boot.ProjectID}},
	}}, nil)
	if err != nil {
		return err
	}

	g.token = head.Get("X-Subject-Token")

	return nil
}

// call sends JSON and reads JSON.
func (g *gateway) call(ctx context.Context, method, url string, in, out any) (http.Header, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}

	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}

	req.Header.Set("X-Auth-Token", g.token)

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end

	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}

	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, data)
	}

	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, url, err)
		}
	}

	return resp.Header, nil
}

// patience bounds every wait for a state of the control plane.
const patience = 60 * time.Second

// until asks for an object until a member of it is want.
func (g *gateway) until(ctx context.Context, path, member, want string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	every := time.NewTicker(50 * time.Millisecond)
	defer every.Stop()

	for {
		got := map[string]any{}
		if _, err := g.call(ctx, http.MethodGet, g.api(path), nil, &got); err != nil {
			return err
		}

		if got[member] == want {
			return nil
		}

		if got[member] == "failed" {
			return fmt.Errorf("%s: %v", path, got)
		}

		select {
		case <-every.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %s is still %v", path, member, got[member])
		}
	}
}

func (g *gateway) api(path string) string { return g.control + "/v1/" + g.project + path }

// deploy makes a service of two versions, 90 to 10, with limits that are never reached.
func (g *gateway) deploy(ctx context.Context, name, kind string, dirs [2]string) (string, error) {
	weights := [2]string{"90", "10"}
	entries := make([]any, 0, len(dirs))

	for i, dir := range dirs {
		var model struct {
			ID string `json:"model_id"`
		}

		_, err := g.call(ctx, http.MethodPost, g.api("/models"), map[string]any{
			"model_name": name, "model_version": "1.0." + strconv.Itoa(i), "model_type": kind, "source_location": dir,
		}, &model)
		if err != nil {
			return "", err
		}

		if err := g.until(ctx, "/models/"+model.ID, "model_status", "published"); err != nil {
			return "", err
		}

		entries = append(entries, map[string]any{
			"model_id": model.ID, "weight": weights[i], "specification": "local.cpu", "instance_count": 1,
		})
	}

	var service struct {
		ID string `json:"service_id"`
	}

	_, err := g.call(ctx, http.MethodPost, g.api("/services"), map[string]any{
		"service_name": name, "infer_type": "real-time", "config": entries,
		"limits": map[string]any{"requests_per_second": 1e6, "burst": 1000000, "concurrency": 10000},
	}, &service)
	if err != nil {
		return "", err
	}

	return service.ID, g.until(ctx, "/services/"+service.ID, "status", "running")
}

// services deploys the ONNX model behind the link and, given addresses, the constant upstream
// behind HTTP/1.1.
func (g *gateway) services(ctx context.Context, dir string, upstream [2]string) error {
	var onnx, external [2]string

	for i := range onnx {
		onnx[i] = filepath.Join(dir, "trivial-"+strconv.Itoa(i))
		external[i] = filepath.Join(dir, "external-"+strconv.Itoa(i))

		if err := errors.Join(os.MkdirAll(onnx[i], 0o700), os.MkdirAll(external[i], 0o700)); err != nil {
			return fmt.Errorf("write packages: %w", err)
		}

		err := errors.Join(
			onnxgen.Identity(onnxgen.Float, onnxgen.Batch(columns)).WriteFile(filepath.Join(onnx[i], "model.onnx")),
			os.WriteFile(filepath.Join(onnx[i], "config.json"), []byte(`{"model_type":"ONNX"}`), 0o600),
			os.WriteFile(filepath.Join(external[i], "config.json"),
				[]byte(`{"model_type":"External","endpoints":[{"url":"http://`+upstream[i]+`"}]}`), 0o600),
		)
		if err != nil {
			return fmt.Errorf("write packages: %w", err)
		}
	}

	g.pkgDir = onnx[0]

	var err error
	if g.linked, err = g.deploy(ctx, "trivial", "ONNX", onnx); err != nil || upstream[0] == "" {
		return err
	}

	g.foreign, err = g.deploy(ctx, "foreign", "External", external)

	return err
}
