package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const loopback = "127.0.0.1:"

// bed is what all candidates of one run share.
type bed struct {
	dir      string
	logs     bool // everybody writes an access log
	token    string
	constant string    // the answer of the constant upstream, as long as a real one
	upstream [2]string // addresses of the constant upstream
	procs    []*process
}

// stop ends everything in the reverse order of starting.
func (b *bed) stop() {
	for _, v := range slices.Backward(b.procs) {
		v.stop()
	}
}

func (b *bed) write(name, text string) (string, error) {
	file := filepath.Join(b.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write a configuration: %w", err)
	}

	return file, nil
}

func (b *bed) start(ctx context.Context, addr, program string, args ...string) (*process, error) {
	p, err := spawn(ctx, nil, program, args...)
	if err != nil {
		return nil, err
	}

	b.procs = append(b.procs, p)

	return p, p.waitPort(ctx, addr)
}

// nginxHead is common to the proxy and the constant upstream. No access log: the comparison is
// without logs on all sides unless the run asks for them.
const nginxHead = `daemon off;
worker_processes auto;
pid %[1]s.pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
  %[2]s
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_body_temp_path %[1]s.body; proxy_temp_path %[1]s.proxy;
  fastcgi_temp_path %[1]s.fcgi; uwsgi_temp_path %[1]s.uwsgi; scgi_temp_path %[1]s.scgi;
`

func (b *bed) nginxHead(name string) string {
	access := "access_log off;"
	if b.logs && name == "proxy" {
		access = "access_log " + filepath.Join(b.dir, name+".log") + ";"
	}

	return fmt.Sprintf(nginxHead, filepath.Join(b.dir, name), access)
}

// startConstant starts the nginx that always gives the same answer, on two ports.
func (b *bed) startConstant(ctx context.Context) (*process, error) {
	var conf strings.Builder

	conf.WriteString(b.nginxHead("constant"))
	conf.WriteString("  default_type application/json;\n")

	for i := range b.upstream {
		port, err := freePort(ctx)
		if err != nil {
			return nil, err
		}

		b.upstream[i] = loopback + strconv.Itoa(port)
		fmt.Fprintf(&conf, "  server { listen %s; location / { return 200 '%s'; } }\n", b.upstream[i], b.constant)
	}

	conf.WriteString("}\n")

	file, err := b.write("constant.conf", conf.String())
	if err != nil {
		return nil, err
	}

	return b.start(ctx, b.upstream[1], "nginx", "-c", file, "-p", b.dir)
}

// startNginx starts nginx as a proxy with token check, limit and a split of 90 to 10.
func (b *bed) startNginx(ctx context.Context) (*process, string, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, "", err
	}

	addr := loopback + strconv.Itoa(port)
	conf := b.nginxHead("proxy") + fmt.Sprintf(`  map_hash_bucket_size 16384;
  map $http_x_auth_token $allowed { default 0; "%s" 1; }
  limit_req_zone $http_x_auth_token zone=rate:4m rate=1000000r/s;
  split_clients "$request_id" $version { 90%% first; * second; }
  upstream first { server %s; keepalive 512; keepalive_requests 1000000000; }
  upstream second { server %s; keepalive 512; keepalive_requests 1000000000; }
  server {
    listen %s;
    location /v1/infers/ {
      if ($allowed = 0) { return 401; }
      limit_req zone=rate burst=1000000 nodelay;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_pass http://$version;
    }
  }
}
`, b.token, b.upstream[0], b.upstream[1], addr)

	file, err := b.write("proxy.conf", conf)
	if err != nil {
		return nil, "", err
	}

	p, err := b.start(ctx, addr, "nginx", "-c", file, "-p", b.dir)

	return p, addr, err
}

// startHAProxy starts HAProxy with the same job.
func (b *bed) startHAProxy(ctx context.Context) (*process, string, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, "", err
	}

	addr := loopback + strconv.Itoa(port)
	log := ""

	if b.logs {
		log = "  log stderr format raw local0\n  option httplog\n"
	}

	conf := fmt.Sprintf(`global
  maxconn 4096
  tune.bufsize 32768
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 60s
  option http-keep-alive
  http-reuse always
%s
frontend in
  bind %s
  stick-table type string len 64 size 10k expire 60s store http_req_rate(1s)
  acl known req.hdr(x-auth-token) -m str "%s"
  http-request deny deny_status 401 unless known
  http-request track-sc0 req.hdr(x-auth-token)
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }
  default_backend versions
backend versions
  balance roundrobin
  server first %s weight 90
  server second %s weight 10
`, log, addr, b.token, b.upstream[0], b.upstream[1])

	file, err := b.write("haproxy.conf", conf)
	if err != nil {
		return nil, "", err
	}

	p, err := b.start(ctx, addr, "haproxy", "-f", file, "-db")

	return p, addr, err
}
