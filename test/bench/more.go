package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/loadtest/request"
	"github.com/sluice-gateway/sluice/spec"
)

func field(name, value string) request.Field { return request.Field{Name: name, Value: value} }

// get reads a small document.
func get(ctx context.Context, u string) ([]byte, error) {
	const most = 1 << 20

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", u, err)
	}

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", u, err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only

	data, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read %s: HTTP %s %s %w", u, resp.Status, data, err)
	}

	return data, nil
}

// findService returns the id of a service, made of a model if it does not exist yet.
func (s *system) findService(ctx context.Context, name, model string) (string, error) {
	out, err := s.run(ctx, "service", "list", "-o", "json")
	if err != nil {
		return "", err
	}

	var doc struct {
		Services []struct {
			ID   string `json:"service_id"`
			Name string `json:"service_name"`
		} `json:"services"`
	}

	if err := json.Unmarshal(out, &doc); err != nil {
		return "", fmt.Errorf("list services: %w", err)
	}

	for _, svc := range doc.Services {
		if svc.Name == name {
			return svc.ID, nil
		}
	}

	if model == "" {
		return "", skip("it needs the service of the part \"edge\"")
	}

	return s.service(ctx, name, model)
}

// auth compares the ways of authenticating on the same upstream.
func (b *bench) auth() error {
	s, err := b.system()
	if err != nil {
		return err
	}

	open, err := s.findEcho(b)
	if err != nil {
		return err
	}

	closed, err := s.service(b.ctx, "echo-closed", "echo", "TOKEN", "AKSK", "APP")
	if err != nil {
		return err
	}

	token, err := s.run(b.ctx, "token", "create")
	if err != nil {
		return err
	}

	signer, err := s.signer()
	if err != nil {
		return err
	}

	body := []byte(`{"instances":[[1,2,3,4]]}`)
	at := func(id string) string { return s.edge + "/v1/infers/" + id }

	list, err := b.turns(
		target{name: "open to all", url: at(open), body: body, server: s.process},
		target{
			name: "token", url: at(closed), body: body, server: s.process,
			fields: []request.Field{field("X-Auth-Token", strings.TrimSpace(string(token)))},
		},
		target{name: "AK/SK, each request signed afresh", url: at(closed), body: body, server: s.process, item: func(i *request.Item) { i.Signer = signer }},
	)
	if err != nil {
		return err
	}

	b.comparison(list)

	code, err := s.appCode(b.ctx, "bench", closed)
	if err != nil {
		return err
	}

	secure := func(id string) string { return s.secure + "/v1/infers/" + id }

	list, err = b.turns(
		target{name: "HTTPS, open to all", url: secure(open), body: body, server: s.process},
		target{name: "HTTPS, app code", url: secure(closed), body: body, server: s.process, fields: []request.Field{field("X-Apig-AppCode", code)}},
	)
	if err != nil {
		return err
	}

	b.comparison(list)
	b.report.text("App codes travel over HTTPS only; connections stay open, so that handshakes do not count.")

	return nil
}

// appCode makes an app that may call a service, and returns a code of it.
func (s *system) appCode(ctx context.Context, name, service string) (string, error) {
	if _, err := s.run(ctx, "app", "create", name); err != nil {
		return "", err
	}

	if _, err := s.run(ctx, "app", "grant", name, service); err != nil {
		return "", err
	}

	out, err := s.run(ctx, "app", "code", name, "-o", "json")
	if err != nil {
		return "", err
	}

	var made struct {
		App struct {
			Codes []string `json:"app_codes"`
		} `json:"app"`
	}

	if err := json.Unmarshal(out, &made); err != nil || len(made.App.Codes) == 0 {
		return "", fmt.Errorf("app code tells no code: %s %w", out, err)
	}

	return made.App.Codes[0], nil
}

func (s *system) signer() (*sign.Prepared, error) {
	data, err := os.ReadFile(filepath.Join(s.data, "bootstrap.json"))
	if err != nil {
		return nil, fmt.Errorf("access key: %w", err)
	}

	var boot struct {
		Access string `json:"access_key"`
		Secret string `json:"secret_key"`
	}

	if err := json.Unmarshal(data, &boot); err != nil {
		return nil, fmt.Errorf("access key: %w", err)
	}

	p, err := sign.Signer{AccessKey: boot.Access, Secret: spec.NewSecret(boot.Secret)}.Prepare()
	if err != nil {
		return nil, fmt.Errorf("access key: %w", err)
	}

	return p, nil
}

// fresh starts a Sluice of its own for parts that look at memory, with the service "echo".
func (b *bench) fresh(name string) (*system, string, error) {
	s, err := startSystem(b.ctx, filepath.Join(b.dir, name))
	if err != nil {
		return nil, "", err
	}

	id, err := s.external(b.ctx, "echo", "http://"+b.echo.address, filepath.Join(b.dir, name+"-echo"))
	if err != nil {
		s.close()

		return nil, "", err
	}

	return s, id, nil
}

// memory opens connections that have made one request and then do nothing.
func (b *bench) memory() error {
	s, id, err := b.fresh("memory")
	if err != nil {
		return err
	}
	defer s.close()

	const each, steps = 1000, 3

	u, err := url.Parse(s.edge)
	if err != nil {
		return fmt.Errorf("edge: %w", err)
	}

	var conns []net.Conn

	defer func() {
		for _, c := range conns {
			c.Close() //nolint:errcheck // nothing is under way
		}
	}()

	pid := s.cmd.Process.Pid

	before, err := s.live(b.ctx)
	if err != nil {
		return err
	}

	base := resident(pid)
	rows := [][]string{{"0", mib(before), "–", "–", mib(base), "–"}}
	perConn := func(now, was int64, n int) string { return fmt.Sprintf("%.1f KiB", float64(now-was)/float64(n)/1024) }

	for last := before; len(conns) < steps*each; {
		for range each {
			c, err := idle(b.ctx, u.Host, "/v1/infers/"+id)
			if err != nil {
				return err
			}

			conns = append(conns, c)
		}

		fresh, err := s.live(b.ctx)
		if err != nil {
			return err
		}

		if err := b.park(); err != nil {
			return err
		}

		parked, err := s.live(b.ctx)
		if err != nil {
			return err
		}

		now := resident(pid)
		rows = append(rows, []string{
			strconv.Itoa(len(conns)), mib(parked), perConn(fresh, last, each), perConn(parked, before, len(conns)), mib(now), perConn(now, base, len(conns)),
		})
		last = parked
	}

	b.report.table([]string{
		"idle connections", "heap and stacks", "for each, just after its request", "for each, idle for three seconds", "resident", "resident, for each",
	}, rows)
	b.report.text("Heap and stacks in use behind two garbage collections, of a process that has just been started, control plane and etcd included. " +
		"Each connection has made one request. One that is idle for a second (`timeouts.park_after`) gives its buffers back, which is why the two " +
		"columns differ. The resident size lags behind in both directions: the runtime reuses what it has, and gives it back slowly; what the edge alone " +
		"needs for 10,000 idle connections is measured by `SLUICE_IDLE_CONNECTIONS=10000 go test -run IdleConnectionsAreSmall -v ./gateway/edge`.")

	return nil
}

// park waits until idle connections have given their buffers back.
func (b *bench) park() error {
	const parked = 3 * time.Second

	select {
	case <-time.After(parked):
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err() //nolint:wrapcheck // interrupted
	}
}

// live is the memory in use behind two garbage collections.
func (s *system) live(ctx context.Context) (int64, error) {
	for range 2 { // what pools hold goes with the second one
		if _, err := get(ctx, s.ops+"/debug/pprof/heap?gc=1&debug=0"); err != nil {
			return 0, err
		}
	}

	data, err := get(ctx, s.ops+"/metrics")
	if err != nil {
		return 0, err
	}

	sum, found := 0.0, 0

	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name != "go_memstats_heap_inuse_bytes" && name != "go_memstats_stack_inuse_bytes" {
			continue
		}

		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}

		sum += v
		found++
	}

	if found != 2 {
		return 0, skip("the metrics tell nothing about memory")
	}

	return int64(sum), nil
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// idle makes a connection, sends one request and reads the answer.
func idle(ctx context.Context, address, path string) (net.Conn, error) {
	const patience = 10 * time.Second

	d := net.Dialer{Timeout: patience}

	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("idle connection: %w", err)
	}

	buf := make([]byte, 4096)

	err = c.SetDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 2\r\n\r\n{}", path, address)
	}

	if err == nil {
		_, err = c.Read(buf)
	}

	if err != nil {
		c.Close() //nolint:errcheck // given up

		return nil, fmt.Errorf("idle connection: %w", err)
	}

	return c, nil
}
