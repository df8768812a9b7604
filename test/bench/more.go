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

	open, err := s.findService(b.ctx, "echo", "")
	if err != nil {
		return err
	}

	closed, err := s.service(b.ctx, "echo-closed", "echo", "TOKEN", "AKSK")
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
	b.report.text("App codes and keys: skipped, they travel over HTTPS only; `BenchmarkVerifyAppCode` of `auth` has their cost.")

	return nil
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

	rows := [][]string{{"0", mib(before), "–", mib(resident(pid))}}

	for i := range steps {
		for range each {
			c, err := idle(b.ctx, u.Host, "/v1/infers/"+id)
			if err != nil {
				return err
			}

			conns = append(conns, c)
		}

		now, err := s.live(b.ctx)
		if err != nil {
			return err
		}

		rows = append(rows, []string{
			strconv.Itoa((i + 1) * each), mib(now), fmt.Sprintf("%.1f KiB", float64(now-before)/float64(len(conns))/1024), mib(resident(pid)),
		})
	}

	b.report.table([]string{"idle connections", "heap and stacks", "for each connection", "resident"}, rows)
	b.report.text("Heap and stacks in use behind a garbage collection, of a process that has just been started, control plane and etcd included. " +
		"Each connection has made one request. The resident size lags behind: the runtime gives memory back slowly.")

	return nil
}

// live is the memory in use behind a garbage collection.
func (s *system) live(ctx context.Context) (int64, error) {
	if _, err := get(ctx, s.ops+"/debug/pprof/heap?gc=1&debug=0"); err != nil {
		return 0, err
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

// services adds services and looks whether the others get slower or the process larger.
func (b *bench) services() error {
	s, id, err := b.fresh("services")
	if err != nil {
		return err
	}
	defer s.close()

	const more = 50

	body := []byte(`{}`)
	t := target{name: "with few services", url: s.edge + "/v1/infers/" + id, body: body, server: s.process}

	before, err := b.turns(t)
	if err != nil {
		return err
	}

	size, err := s.live(b.ctx)
	if err != nil {
		return err
	}

	for i := range more {
		if _, err := s.service(b.ctx, fmt.Sprintf("more-%d", i), "echo"); err != nil {
			return err
		}
	}

	now, err := s.live(b.ctx)
	if err != nil {
		return err
	}

	grown := now - size
	t.name = fmt.Sprintf("with %d more", more)

	after, err := b.turns(t)
	if err != nil {
		return err
	}

	b.comparison(append(before, after...))
	b.report.text("Heap and stacks grew by %.0f KiB for each service (external engine, no worker), what etcd took meanwhile included. Growth with access keys and apps: see `BenchmarkCompile` "+
		"and `BenchmarkVerifyManyRequests` of `auth`.", float64(grown)/more/1024)

	return nil
}
