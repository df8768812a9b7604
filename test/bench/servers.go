package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// proxy is a server in front of the upstream.
type proxy struct {
	*process

	name string
	url  string
}

// startAll starts servers, and says in the report which of them are left out and why. Those that it gives are
// the caller's to close, also when it fails.
func (b *bench) startAll(begin ...func() (*proxy, error)) ([]*proxy, error) {
	var started []*proxy

	for _, f := range begin {
		p, err := f()

		var skipped *skipError

		switch {
		case errors.As(err, &skipped):
			b.report.text("Left out: %s.", skipped.reason)
		case err != nil:
			return started, err
		default:
			started = append(started, p)
		}
	}

	return started, nil
}

func closeAll(list []*proxy) {
	for _, p := range list {
		p.close()
	}
}

// nginx starts nginx as a reverse proxy, with as many workers as there are processors, or, without
// an upstream, as a server that answers by itself.
func (b *bench) nginx(upstream string) (*proxy, error) {
	if _, err := exec.LookPath("nginx"); err != nil {
		return nil, skip("nginx is not installed (apt-get install nginx-light)")
	}

	port, err := freePort()
	if err != nil {
		return nil, err
	}

	location := `return 200 "hello";`
	if upstream != "" {
		location = `proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_max_temp_file_size 0;`
	}

	conf := fmt.Sprintf(`worker_processes auto; daemon off; pid %[1]s/nginx-%[2]d.pid; error_log %[1]s/nginx.log;
events { worker_connections 8192; }
http {
  access_log off; keepalive_requests 1000000000; client_max_body_size 64m; client_body_buffer_size 8m;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  upstream up { server %[3]s; keepalive 256; keepalive_requests 1000000000; }
  server { listen 127.0.0.1:%[2]d; location / { %[4]s } }
}
`, b.dir, port, firstOf(upstream, "127.0.0.1:1"), location)

	path := filepath.Join(b.dir, fmt.Sprintf("nginx-%d.conf", port))
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		return nil, fmt.Errorf("nginx: %w", err)
	}

	return b.proxy("nginx", port, "nginx", "-p", b.dir, "-e", b.dir+"/nginx.log", "-c", path)
}

func (b *bench) haproxy(upstream string) (*proxy, error) {
	if _, err := exec.LookPath("haproxy"); err != nil {
		return nil, skip("HAProxy is not installed (apt-get install haproxy)")
	}

	port, err := freePort()
	if err != nil {
		return nil, err
	}

	conf := fmt.Sprintf(`global
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend f
  bind 127.0.0.1:%d
  default_backend b
backend b
  server s %s
`, port, upstream)

	path := filepath.Join(b.dir, "haproxy.cfg")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		return nil, fmt.Errorf("haproxy: %w", err)
	}

	return b.proxy("HAProxy", port, "haproxy", "-db", "-f", path)
}

func (b *bench) proxy(name string, port int, command ...string) (*proxy, error) {
	p, err := start(b.ctx, filepath.Join(b.dir, name+".out"), command[0], command[1:]...)
	if err != nil {
		return nil, err
	}

	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	if err := answers(b.ctx, url); err != nil {
		p.close()

		return nil, fmt.Errorf("%s: %w", name, err)
	}

	return &proxy{p, name, url}, nil
}

// system is a whole Sluice.
type system struct {
	*process

	data    string
	edge    string
	secure  string // the edge over HTTPS
	control string
	ops     string
	project string
	took    time.Duration // until it was ready
}

const binary = "bin/sluice"

func startSystem(ctx context.Context, data string) (*system, error) {
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("run \"make build\" first: %w", err)
	}

	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}

	began := time.Now()

	p, err := start(ctx, filepath.Join(data, "out.log"), binary, "serve", "--config", "configs/quickstart.yaml", "--data", data,
		"--edge-http", "127.0.0.1:0", "--edge-https", "127.0.0.1:0", "--control", "127.0.0.1:0", "--ops", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}

	s := &system{process: p, data: data}

	if err := s.ready(ctx); err != nil {
		s.close()

		return nil, err
	}

	s.took = time.Since(began)

	return s, nil
}

// ready waits for the line that tells so.
func (s *system) ready(ctx context.Context) error {
	const patience = time.Minute

	over := time.After(patience)

	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()

	for {
		log, err := os.ReadFile(filepath.Join(s.data, "out.log"))
		if err == nil && strings.Contains(string(log), "sluice ready") {
			break
		}

		select {
		case <-tick.C:
		case <-s.done:
			return fmt.Errorf("sluice serve ended: %s", tail(log))
		case <-over:
			return fmt.Errorf("sluice serve is not ready: %s", tail(log))
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // interrupted
		}
	}

	data, err := os.ReadFile(filepath.Join(s.data, "endpoints.json"))
	if err != nil {
		return fmt.Errorf("sluice serve: %w", err)
	}

	var at struct {
		Edge    string `json:"edge_http"`
		Secure  string `json:"edge_https"`
		Control string `json:"control"`
		Ops     string `json:"ops"`
	}

	if err := json.Unmarshal(data, &at); err != nil {
		return fmt.Errorf("sluice serve: %w", err)
	}

	s.edge, s.secure, s.control, s.ops = at.Edge, at.Secure, at.Control, at.Ops

	return s.bootstrap()
}

func tail(log []byte) string {
	const most = 600

	return strings.ToValidUTF8(string(log[max(0, len(log)-most):]), "")
}

// run calls a client verb.
func (s *system) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "SLUICE_DATA="+s.data, "SLUICE_NEW_PASSWORD=Of-Nobody-7391")

	out, err := cmd.Output()
	if err != nil {
		var stderr []byte

		if ee := (*exec.ExitError)(nil); asExit(err, &ee) {
			stderr = ee.Stderr
		}

		return out, fmt.Errorf("sluice %s: %w: %s", strings.Join(args, " "), err, stderr)
	}

	return out, nil
}

// external makes a service in front of a server that runs already, open to everybody unless ways of authenticating are given.
func (s *system) external(ctx context.Context, name, url, dir string, auth ...string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("model package: %w", err)
	}

	conf := fmt.Sprintf(`{"model_type":"External","model_algorithm":"echo","endpoints":[{"url":%q}],"apis":[{"url":"/","method":"POST","protocol":"http"}]}`, url)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(conf), 0o600); err != nil {
		return "", fmt.Errorf("model package: %w", err)
	}

	if _, err := s.run(ctx, "model", "create", name, dir, "--type", "External"); err != nil {
		return "", err
	}

	return s.service(ctx, name, name, auth...)
}

// service deploys a model and returns the id of the service.
func (s *system) service(ctx context.Context, name, model string, auth ...string) (string, error) {
	if len(auth) == 0 {
		auth = []string{"NONE"}
	}

	out, err := s.run(ctx, "service", "create", name, "--model", model, "--auth", strings.Join(auth, ","), "-o", "json")
	if err != nil {
		return "", err
	}

	var made struct {
		ID string `json:"service_id"`
	}

	if i := strings.IndexByte(string(out), '{'); i < 0 || json.Unmarshal(out[i:], &made) != nil || made.ID == "" {
		return "", fmt.Errorf("service create tells no id: %s", out)
	}

	return made.ID, nil
}

// upstream is a server behind the servers under test.
type upstream struct {
	address string
	stop    func() error
}
