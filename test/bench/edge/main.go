package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	bin, out string
	length   time.Duration
	rounds   int
	conns    int
	logs     bool
	profile  string
}

func main() {
	runtime.LockOSThread() // see spawn

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)

	stop()

	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench-edge:", err)

		os.Exit(1) //nolint:forbidigo // that is how main ends
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var o options

	fs := flag.NewFlagSet("edge", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.bin, "bin", "bin", "`directory` with sluice and sluice-runtime")
	fs.StringVar(&o.out, "out", "", "`file` for the report besides standard output")
	fs.DurationVar(&o.length, "length", 5*time.Second, "length of one run")
	fs.IntVar(&o.rounds, "rounds", 3, "runs of each candidate")
	fs.IntVar(&o.conns, "conns", 64, "connections at saturation")
	fs.StringVar(&o.profile, "profile", "", "`file` for a CPU profile of the gateway in a run of its own, for go tool pprof")
	fs.BoolVar(&o.logs, "logs", false, "write access logs, all of them")

	if err := fs.Parse(args); err != nil {
		return err //nolint:wrapcheck // flag has told it
	}

	if o.length < time.Second || o.rounds < 1 || o.conns < 1 {
		return errors.New("-length of at least 1s, -rounds and -conns of at least 1 are needed")
	}

	if _, err := exec.LookPath("wrk"); err != nil {
		_, _ = fmt.Fprintln(stdout, "bench-edge: skipped, wrk is not installed (apt-get install wrk nginx haproxy)")

		return nil
	}

	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory

	b := &bed{dir: dir, logs: o.logs}
	defer b.stop()

	res, err := o.measure(ctx, b, stdout)
	if err != nil {
		return err
	}

	text := res.markdown(&o)
	_, _ = io.WriteString(stdout, text)

	if o.out == "" {
		return nil
	}

	if err := os.WriteFile(o.out, []byte(text), 0o644); err != nil { //nolint:gosec // a page of the documentation
		return fmt.Errorf("write the report: %w", err)
	}

	return nil
}

// results are the candidates after their rounds; nil is one that was not there.
type results struct {
	linked, foreign, nginx, haproxy *candidate
	// One connection: through the gateway, and to a worker without it.
	single, direct *candidate
	// Below half of the load at saturation, all at the same rate: through the gateway, to that worker, and
	// through nginx to nginx, nil if it is not there.
	half, halfDirect, halfNginx *open
}

// measure starts what is there and drives it.
func (o *options) measure(ctx context.Context, b *bed, stdout io.Writer) (*results, error) {
	g, err := b.startSluice(ctx, o.bin)
	if err != nil {
		return nil, err
	}

	b.token = g.token

	res := &results{}

	all, err := o.others(ctx, b, g, res, stdout)
	if err != nil {
		return nil, err
	}

	lua, err := b.write("load.lua", fmt.Sprintf(script, request, b.token))
	if err != nil {
		return nil, err
	}

	if err := turns(ctx, all, lua, o.conns, o); err != nil {
		return nil, err
	}

	if o.profile != "" {
		if err := g.profile(ctx, o, res.linked, lua); err != nil {
			return nil, err
		}
	}

	worker, addr, err := b.startWorker(ctx, o.bin, g.pkgDir)
	if err != nil {
		return nil, err
	}

	res.direct = &candidate{name: "worker alone", url: "http://" + addr + inferPath, proxy: worker}
	res.single = &candidate{name: "Sluice", url: res.linked.url, proxy: g.proc, engines: true}

	if err := turns(ctx, []*candidate{res.direct, res.single}, lua, 1, o); err != nil {
		return nil, err
	}

	rate := belowHalf * res.linked.summary().rate
	res.half = &open{name: "through the gateway, over link", url: res.linked.url, rate: rate}
	res.halfDirect = &open{name: "worker alone", url: res.direct.url, rate: rate}

	ways := []*open{res.halfDirect, res.half}
	if res.nginx != nil {
		res.halfNginx = &open{name: res.nginx.name, url: res.nginx.url, rate: rate}
		ways = append(ways, res.halfNginx)
	}

	return res, b.openTurns(ctx, ways, o)
}

// others starts what Sluice is compared with, and lists all candidates.
func (o *options) others(ctx context.Context, b *bed, g *gateway, res *results, stdout io.Writer) ([]*candidate, error) {
	// The answer of the constant upstream is as long as the model's.
	b.constant = `{"model_name":"trivial","model_version":"1.0.0","outputs":[{"name":"y","datatype":"FP32","shape":[1,4],"data":[1.5,2,3.25,4]}]}`

	var constant *process

	if _, err := exec.LookPath("nginx"); err != nil {
		_, _ = fmt.Fprintln(stdout, "bench-edge: nginx is not installed; only Sluice is measured (apt-get install nginx haproxy)")
	} else if constant, err = b.startConstant(ctx); err != nil {
		return nil, err
	}

	if err := g.services(ctx, b.dir, b.upstream); err != nil {
		return nil, err
	}

	url := func(base, service string) string { return base + "/v1/infers/" + service + inferPath }

	res.linked = &candidate{name: "Sluice to a worker over link", url: url(g.edge, g.linked), proxy: g.proc, engines: true}
	if err := g.check(ctx, res.linked.url, len(b.constant)); err != nil {
		return nil, err
	}

	all := []*candidate{res.linked}
	if constant == nil {
		return all, nil
	}

	proxy, addr, err := b.startNginx(ctx)
	if err != nil {
		return nil, err
	}

	res.nginx = &candidate{name: "nginx to nginx", url: url("http://"+addr, "x"), proxy: proxy, engine: constant}
	res.foreign = &candidate{name: "Sluice to nginx over HTTP/1.1", url: url(g.edge, g.foreign), proxy: g.proc, engine: constant}
	all = append(all, res.nginx)

	if _, err := exec.LookPath("haproxy"); err != nil {
		_, _ = fmt.Fprintln(stdout, "bench-edge: haproxy is not installed and left out (apt-get install haproxy)")
	} else {
		if proxy, addr, err = b.startHAProxy(ctx); err != nil {
			return nil, err
		}

		res.haproxy = &candidate{name: "HAProxy to nginx", url: url("http://"+addr, "x"), proxy: proxy, engine: constant}
		all = append(all, res.haproxy)
	}

	return append(all, res.foreign), nil
}

// check calls once: the answer must be the model's, and about as long as the constant one.
func (g *gateway) check(ctx context.Context, url string, size int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(request))
	if err != nil {
		return fmt.Errorf("try a prediction: %w", err)
	}

	req.Header.Set("X-Auth-Token", g.token)
	req.Header.Set("Content-Type", "application/json")

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("try a prediction: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end

	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("try a prediction: %w", err)
	}

	const margin = 20
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "3.25") || max(len(body)-size, size-len(body)) > margin {
		return fmt.Errorf("try a prediction: %s: %s", resp.Status, body)
	}

	return nil
}

// startWorker starts a worker that is called without a gateway.
func (b *bed) startWorker(ctx context.Context, bin, dir string) (*process, string, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, "", err
	}

	addr := loopback + strconv.Itoa(port)

	p, err := b.start(ctx, addr, filepath.Join(bin, "sluice-runtime"), "serve", "--package", dir, "--model", "trivial",
		"--version", "1.0.0", "--listen", addr, "--drain-delay", "0s", "--log-level", "error")
	if err != nil {
		return nil, "", err
	}

	// It listens before the model is loaded.
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	every := time.NewTicker(50 * time.Millisecond)
	defer every.Stop()

	for {
		if (&gateway{}).check(ctx, "http://"+addr+inferPath, len(b.constant)) == nil {
			return p, addr, nil
		}

		select {
		case <-every.C:
		case <-ctx.Done():
			return nil, "", errors.New("the worker alone does not get ready")
		}
	}
}
