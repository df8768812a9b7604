package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func serviceCommand() *cobra.Command {
	b := &base{}
	cmd := &cobra.Command{Use: "service", Short: "Deploy, watch, call and delete services"}
	b.flags(cmd)
	cmd.AddCommand(
		serviceCreate(b), serviceList(b), serviceGet(b), serviceSet(b, "start", "running"), serviceSet(b, "stop", "stopped"),
		serviceDelete(b), serviceEvents(b), serviceWatch(b), servicePredict(b), serviceExplain(b),
		serviceInstances(b), serviceLogs(b), serviceUpdates(b),
		serviceUpgrade(b, "pause", "Pause the running upgrade of a service", "the upgrade is paused; sluice service resume goes on"),
		serviceUpgrade(b, "resume", "Go on with a paused upgrade", "the upgrade goes on"),
		serviceUpgrade(b, "abort", "Undo the running upgrade of a service", "the upgrade is being undone"),
	)

	return cmd
}

type createFlags struct {
	models      []string
	instances   int
	spec        string
	description string
	auth        []string
	envs        map[string]string
	wait        time.Duration
	noWait      bool
}

func serviceCreate(b *base) *cobra.Command {
	var f createFlags

	cmd := &cobra.Command{
		Use:   "create NAME --model MODEL[/VERSION][=WEIGHT] …",
		Short: "Deploy a service and wait until it runs",
		Example: `  sluice service create digits --model digits
  sluice service create digits --model digits/1.0.0=90 --model digits/1.0.1=10 --instances 2`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return b.createService(cmd, args[0], &f) },
	}

	fl := cmd.Flags()
	fl.StringArrayVar(&f.models, "model", nil, "model to serve: NAME, NAME/VERSION or id, with =WEIGHT if there are several")
	fl.IntVar(&f.instances, "instances", 1, "instances of each model")
	fl.StringVar(&f.spec, "specification", "local.cpu", "specification of an instance")
	fl.StringVar(&f.description, "description", "", "description")
	fl.StringSliceVar(&f.auth, "auth", nil, "ways of authenticating: TOKEN, AKSK, APP, NONE (default: all but NONE)")
	fl.StringToStringVar(&f.envs, "env", nil, "environment of the instances")
	fl.DurationVar(&f.wait, "wait", 10*time.Minute, "how long to wait until the service runs")
	fl.BoolVar(&f.noWait, "no-wait", false, "return as soon as the service is accepted")
	must(cmd.MarkFlagRequired("model"))

	return cmd
}

func (b *base) createService(cmd *cobra.Command, name string, f *createFlags) error {
	entries, err := b.entries(cmd.Context(), f)
	if err != nil {
		return err
	}

	body := map[string]any{"service_name": name, "infer_type": "real-time", "config": entries}
	if f.description != "" {
		body["description"] = f.description
	}

	if len(f.auth) > 0 {
		body["auth_types"] = f.auth
	}

	var made struct {
		ServiceID string `json:"service_id"`
	}
	if err := b.conn.api(cmd.Context(), http.MethodPost, "/services", body, &made); err != nil {
		return err
	}

	if !f.noWait {
		if err := b.follow(cmd, made.ServiceID, f.wait, "running"); err != nil {
			return err
		}
	}

	return b.showService(cmd, made.ServiceID)
}

func (b *base) entries(ctx context.Context, f *createFlags) ([]any, error) {
	out := make([]any, 0, len(f.models))

	for _, m := range f.models {
		ref, weight, given := strings.Cut(m, "=")
		if !given {
			weight = "100"
		}

		if !given && len(f.models) > 1 {
			return nil, fmt.Errorf("--model %s: several models need a weight each, such as %s=50", m, m)
		}

		id, err := b.modelID(ctx, ref)
		if err != nil {
			return nil, err
		}

		entry := map[string]any{"model_id": id, "weight": weight, "specification": f.spec, "instance_count": f.instances}
		if len(f.envs) > 0 {
			entry["envs"] = f.envs
		}

		out = append(out, entry)
	}

	return out, nil
}

func serviceColumns() []column {
	return []column{
		field("ID", "service_id"), field("NAME", "service_name"), field("STATUS", "status"), field("PROGRESS", "progress"),
		moment("PUBLISHED", "publish_at"), field("ADDRESS", "access_address"),
	}
}

func (b *base) service(ctx context.Context, id string) (map[string]any, error) {
	whole := map[string]any{}
	err := b.conn.api(ctx, http.MethodGet, "/services/"+url.PathEscape(id), nil, &whole)

	return whole, err
}

func (b *base) showService(cmd *cobra.Command, id string) error {
	whole, err := b.service(cmd.Context(), id)
	if err != nil {
		return err
	}

	return b.list(cmd.OutOrStdout(), whole, []map[string]any{whole}, serviceColumns()...)
}

func serviceList(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List services", Args: cobra.NoArgs, Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			whole := map[string]any{}
			if err := b.conn.api(cmd.Context(), http.MethodGet, "/services", nil, &whole); err != nil {
				return err
			}

			columns := serviceColumns()

			return b.list(cmd.OutOrStdout(), whole, rows(whole, "services"), append(columns[:3:3], columns[4])...)
		},
	}
}

func serviceGet(b *base) *cobra.Command {
	return b.serviceVerb("get NAME|ID", "Show a service", func(cmd *cobra.Command, id string) error {
		whole, err := b.service(cmd.Context(), id)
		if err != nil {
			return err
		}

		return b.whole(cmd.OutOrStdout(), whole)
	})
}

// serviceVerb is a command that takes one service by name or id.
func (b *base) serviceVerb(use, short string, run func(cmd *cobra.Command, id string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		ValidArgsFunction: b.complete("/services", "services", "service_name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := b.serviceID(cmd.Context(), args[0])
			if err != nil {
				return err
			}

			return run(cmd, id)
		},
	}
}

func serviceSet(b *base, verb, status string) *cobra.Command {
	var wait time.Duration

	title := strings.ToUpper(verb[:1]) + verb[1:]
	cmd := b.serviceVerb(verb+" NAME|ID", title+" a service and wait until it is "+status, func(cmd *cobra.Command, id string) error {
		err := b.conn.api(cmd.Context(), http.MethodPut, "/services/"+url.PathEscape(id), map[string]any{"status": status}, nil)
		if err != nil {
			return err
		}

		return b.follow(cmd, id, wait, status)
	})
	cmd.Flags().DurationVar(&wait, "wait", 10*time.Minute, "how long to wait")

	return cmd
}

func serviceDelete(b *base) *cobra.Command {
	cmd := b.serviceVerb("delete NAME|ID", "Delete a service", func(cmd *cobra.Command, id string) error {
		if err := b.conn.api(cmd.Context(), http.MethodDelete, "/services/"+url.PathEscape(id), nil, nil); err != nil {
			return err
		}

		_, _ = fmt.Fprintln(cmd.OutOrStdout(), "deleted", id)

		return nil
	})
	cmd.Aliases = []string{"rm"}

	return cmd
}

func serviceEvents(b *base) *cobra.Command {
	return b.serviceVerb("events NAME|ID", "Show what happened to a service, newest first", func(cmd *cobra.Command, id string) error {
		whole := map[string]any{}
		if err := b.conn.api(cmd.Context(), http.MethodGet, "/services/"+url.PathEscape(id)+"/events", nil, &whole); err != nil {
			return err
		}

		return b.list(cmd.OutOrStdout(), whole, rows(whole, "events"),
			moment("TIME", "occur_time"), field("TYPE", "event_type"), field("EVENT", "event_info"))
	})
}

func serviceWatch(b *base) *cobra.Command {
	var wait time.Duration

	cmd := b.serviceVerb("watch NAME|ID", "Follow a deployment until it runs, fails or stops", func(cmd *cobra.Command, id string) error {
		return b.follow(cmd, id, wait, "running", "stopped", "concerning")
	})
	cmd.Flags().DurationVar(&wait, "wait", 10*time.Minute, "how long to watch")

	return cmd
}

// follow shows progress until the service has one of the wanted statuses; failed is an error.
func (b *base) follow(cmd *cobra.Command, id string, wait time.Duration, wanted ...string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), wait)
	defer cancel()

	line := newProgress(cmd.ErrOrStderr())
	defer line.end()

	began := time.Now()

	for {
		whole, err := b.service(ctx, id)
		if err != nil {
			return err
		}

		status := plainString(whole["status"])
		line.show(progressText(whole, status) + " " + time.Since(began).Truncate(100*time.Millisecond).String())

		if slices.Contains(wanted, status) {
			return nil
		}

		if status == "failed" {
			return errors.New("the service failed: " + firstOf(plainString(whole["error_msg"]), "see its events"))
		}

		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("the service is still %s after %v", status, wait)
		}
	}
}

func progressText(service map[string]any, status string) string {
	s := plainString(service["service_name"]) + " " + status
	if p, ok := service["progress"].(float64); ok && status != "running" {
		s += fmt.Sprintf(" %.0f%%", p)
	}

	return s
}

// progress rewrites one line on a terminal, and writes a line per change elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	last     string
	shown    bool
	at       time.Duration
}

func newProgress(w io.Writer) *progress { return &progress{w: w, terminal: isTerminal(w)} }

func (p *progress) show(s string) {
	p.shown = true

	if p.terminal {
		_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s", s)

		return
	}

	what, _, _ := cutLast(s, " ")
	if what != p.last {
		p.last = what
		_, _ = fmt.Fprintln(p.w, s)
	}
}

// step is show for what changes all the time: beside a terminal it writes a line when stage changes, and else now and then.
func (p *progress) step(s, stage string, since time.Duration) {
	const (
		every = 5 * time.Second
		soon  = 300 * time.Millisecond // what is over by then needs no line
	)

	s += " " + since.Truncate(100*time.Millisecond).String()
	if p.terminal {
		p.shown = true
		p.show(s)

		return
	}

	if !p.shown && (stage == "" || since < soon) || p.shown && stage == p.last && since-p.at < every {
		return
	}

	p.shown, p.last, p.at = true, stage, since
	_, _ = fmt.Fprintln(p.w, s)
}

func (p *progress) end() {
	if p.terminal && p.shown {
		_, _ = fmt.Fprintln(p.w)
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}

	return s, "", false
}

// serviceID finds a service by name; what is not a name is taken as an id.
func (b *base) serviceID(ctx context.Context, ref string) (string, error) {
	whole := map[string]any{}
	if err := b.conn.api(ctx, http.MethodGet, "/services?service_name="+url.QueryEscape(ref), nil, &whole); err != nil {
		return "", err
	}

	for _, s := range rows(whole, "services") {
		if s["service_name"] == ref {
			return plainString(s["service_id"]), nil
		}
	}

	return ref, nil
}
