package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

func serviceInstances(b *base) *cobra.Command {
	return b.serviceVerb("instances NAME|ID", "List the instances of a service", func(cmd *cobra.Command, id string) error {
		whole := map[string]any{}
		if err := b.conn.api(cmd.Context(), http.MethodGet, "/services/"+url.PathEscape(id)+"/instances", nil, &whole); err != nil {
			return err
		}

		return b.list(cmd.OutOrStdout(), whole, rows(whole, "instances"),
			field("INSTANCE", "instance_id"), field("MODEL", "model_name"), field("VERSION", "model_version"),
			field("STATE", "state"), field("RESTARTS", "restarts"), moment("READY", "ready_at"), field("REASON", "reason"))
	})
}

// logFlags of "service logs".
type logFlags struct {
	follow   bool
	instance string
	tail     int
}

func serviceLogs(b *base) *cobra.Command {
	var f logFlags

	cmd := b.serviceVerb("logs NAME|ID", "Show what the instances of a service print", func(cmd *cobra.Command, id string) error {
		if f.tail < 0 {
			return errors.New("--tail must not be negative")
		}

		l := &logs{base: b, flags: f, service: id, out: cmd.OutOrStdout(), seen: map[string]bool{}}

		return l.run(cmd.Context())
	})
	cmd.Example = `  sluice service logs digits
  sluice service logs digits -f --tail 10
  sluice service logs digits --instance 632fcf31-1`

	fl := cmd.Flags()
	fl.BoolVarP(&f.follow, "follow", "f", false, "wait for more, also of instances that come later")
	fl.StringVar(&f.instance, "instance", "", "one instance only (default: all that there are)")
	fl.IntVar(&f.tail, "tail", 1000, "how many of the last lines of each")

	return cmd
}

// logs prints the logs of the instances of a service.
type logs struct {
	*base

	flags   logFlags
	service string

	mu  sync.Mutex // guards out and several
	out io.Writer
	// several instances print: their lines begin with their ids.
	several bool
	seen    map[string]bool
}

func (l *logs) run(ctx context.Context) error {
	if l.flags.instance != "" {
		return l.one(ctx, l.flags.instance)
	}

	ids, err := l.instances(ctx)
	if err != nil {
		return err
	}

	l.several = len(ids) > 1

	if !l.flags.follow {
		for _, id := range ids {
			if err := l.one(ctx, id); err != nil {
				return err
			}
		}

		return nil
	}

	return l.followAll(ctx, ids)
}

// followAll follows every instance, and those that come later.
func (l *logs) followAll(ctx context.Context, ids []string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var wg sync.WaitGroup
	defer wg.Wait()

	for {
		for _, id := range ids {
			if l.seen[id] {
				continue
			}

			l.seen[id] = true

			l.mu.Lock()
			l.several = l.several || len(l.seen) > 1
			l.mu.Unlock()

			wg.Go(func() {
				if err := l.one(ctx, id); err != nil && !notFound(err) {
					cancel(err)
				}
			})
		}

		if err := sleep(ctx, time.Second); err != nil {
			if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
				return cause
			}

			return nil
		}

		var err error
		if ids, err = l.instances(ctx); err != nil {
			if ctx.Err() != nil {
				continue
			}

			return err
		}
	}
}

// notFound is an instance that has printed nothing yet, or is gone.
func notFound(err error) bool {
	var e *APIError

	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

func (l *logs) instances(ctx context.Context) ([]string, error) {
	whole := map[string]any{}
	if err := l.conn.api(ctx, http.MethodGet, "/services/"+url.PathEscape(l.service)+"/instances", nil, &whole); err != nil {
		return nil, err
	}

	var ids []string

	for _, r := range rows(whole, "instances") {
		ids = append(ids, plainString(r["instance_id"]))
	}

	return ids, nil
}

// one prints the log of an instance.
func (l *logs) one(ctx context.Context, id string) error {
	q := url.Values{"tail": {strconv.Itoa(l.flags.tail)}, "follow": {strconv.FormatBool(l.flags.follow)}}

	body, err := l.conn.open(ctx, "/services/"+url.PathEscape(l.service)+"/instances/"+url.PathEscape(id)+"/logs?"+q.Encode())
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // read only

	r := bufio.NewReader(body)

	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			l.print(id, line)
		}

		switch {
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("read the log of %s: %w", id, err)
		}
	}
}

func (l *logs) print(id string, line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.several {
		line = slices.Concat([]byte(id+" "), line)
	}

	l.out.Write(line) //nolint:errcheck // nobody to tell
}

// open asks for an answer that is read as it comes, without a time-out in all.
func (c *connection) open(ctx context.Context, path string) (io.ReadCloser, error) {
	if err := c.authenticate(ctx); err != nil {
		return nil, err
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.control+"/v1/"+url.PathEscape(c.project)+path, nil)
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", path, err)
	}

	req.Header.Set("X-Auth-Token", c.token)

	endless := *c.http
	endless.Timeout = 0

	resp, err := endless.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot reach %s: %w", req.URL.Host, err)
	}

	if resp.StatusCode < http.StatusBadRequest {
		return resp.Body, nil
	}
	defer resp.Body.Close() //nolint:errcheck // read only

	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", req.URL.Host, err)
	}

	return nil, apiError(resp, data)
}
