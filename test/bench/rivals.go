package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Pinned, so that reports can be compared.
const (
	pythonPackages = "flask==3.1.2 onnxruntime==1.30.0"
	nodePackage    = "onnxruntime-node@1.30.0"
	rivalsDir      = "third_party/bench"
	digitsModel    = "configs/models/digits/model.onnx"
)

// installRival runs a package client once; what it made is kept for later runs.
func (b *bench) installRival(made string, commands ...[]string) error {
	const patience = 5 * time.Minute

	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()

	if _, err := os.Stat(made); err == nil {
		return nil
	}

	if err := os.MkdirAll(rivalsDir, 0o755); err != nil { //nolint:gosec // nothing secret
		return fmt.Errorf("install: %w", err)
	}

	for _, c := range commands {
		if _, err := exec.LookPath(c[0]); err != nil {
			return skip("%s is not installed", c[0])
		}

		cmd := exec.CommandContext(ctx, c[0], c[1:]...) //nolint:gosec // commands of this file
		cmd.Env = append(os.Environ(), "ONNXRUNTIME_NODE_INSTALL=skip")

		if out, err := cmd.CombinedOutput(); err != nil {
			return skip("%s failed: %v: %s", strings.Join(c[:2], " "), err, strings.TrimSpace(tail(out)))
		}
	}

	return nil
}

// flask starts the plain Flask server.
func (b *bench) flask() (*proxy, error) {
	venv := filepath.Join(rivalsDir, "venv")
	install := append([]string{filepath.Join(venv, "bin", "pip"), "install", "-q", "--disable-pip-version-check"}, strings.Fields(pythonPackages)...)

	if err := b.installRival(filepath.Join(venv, "bin", "flask"), []string{"python3", "-m", "venv", venv}, install); err != nil {
		return nil, err
	}

	return b.rival("Flask", filepath.Join(venv, "bin", "python"), "test/bench/servers/flask_server.py", digitsModel)
}

// node starts the plain Node server.
func (b *bench) node() (*proxy, error) {
	if _, err := exec.LookPath("node"); err != nil {
		return nil, skip("node is not installed")
	}

	err := b.installRival(filepath.Join(rivalsDir, "node_modules", "onnxruntime-node"),
		[]string{"npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", rivalsDir, nodePackage})
	if err != nil {
		return nil, err
	}

	return b.rival("Node", "node", "test/bench/servers/node_server.cjs", digitsModel)
}

func (b *bench) rival(name string, command ...string) (*proxy, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}

	modules, err := filepath.Abs(filepath.Join(rivalsDir, "node_modules"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}

	return b.proxy(name, port, append([]string{"env", fmt.Sprintf("PORT=%d", port), "MODULES=" + modules}, command...)...)
}

// jsonInference is a V2 request in JSON for one picture.
func jsonInference() []byte {
	const pixels = 8 * 8

	return []byte(`{"inputs":[{"name":"image","shape":[1,1,8,8],"datatype":"FP32","data":[` + strings.Repeat("0.5,", pixels-1) + `0.5]}]}`)
}

// rivals compares whole servers of the same model with the same requests.
func (b *bench) rivals() error {
	s, err := b.system()
	if err != nil {
		return err
	}

	id, err := s.findService(b.ctx, "digits-open", "digits")
	if err != nil {
		return err
	}

	body := jsonInference()

	var others []target

	started, err := b.startAll(b.flask, b.node)
	defer closeAll(started)

	if err != nil {
		return err
	}

	for _, p := range started {
		others = append(others, target{name: p.name, url: p.url, body: body, server: p.process})
	}

	ours := target{name: "sluice", url: s.edge + "/v1/infers/" + id + "/v2/models/digits/infer", body: body, server: s.process}

	for _, callers := range []int{1, 32} {
		targets := append([]target{ours}, others...)
		for i := range targets {
			targets[i].concurrency = callers
			targets[i].name = fmt.Sprintf("%s, %d callers", targets[i].name, callers)
		}

		list, err := b.turns(targets...)
		if err != nil {
			return err
		}

		b.comparison(list)
	}

	b.report.text("One picture as V2 JSON. Flask: its own threaded server over `onnxruntime`, one process, 1 thread inside an operator (`test/bench/servers/flask_server.py`); "+
		"Node: `node:http` over `onnxruntime-node` (`node_server.cjs`); %s, %s. Neither batches, authorizes nor limits; Sluice does, in two processes.", pythonPackages, nodePackage)

	return nil
}
