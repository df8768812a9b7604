package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

type explainFlags struct {
	headers []string
	cookies []string
	query   []string
	path    string
}

func serviceExplain(b *base) *cobra.Command {
	var f explainFlags

	cmd := b.serviceVerb("explain NAME|ID", "Tell where a request would go, and why, without sending it to a model",
		func(cmd *cobra.Command, id string) error { return b.explain(cmd, id, &f) })
	cmd.Long = `Ask the gateway where a request of yours would go. The gateway decides as for a prediction, by the
routes in force there, your credentials and your address, and says which rules did not match, what a
sticky value is bound to, and which share of the requests each version gets now.`
	cmd.Example = `  sluice service explain digits
  sluice service explain digits --header 'X-Gray: yes' --query user=7
  sluice service explain digits --cookie sid=42 -o json`

	fl := cmd.Flags()
	fl.StringArrayVar(&f.headers, "header", nil, "header of the request, as 'Name: value'; may be given several times")
	fl.StringArrayVar(&f.cookies, "cookie", nil, "cookie of the request, as name=value; may be given several times")
	fl.StringArrayVar(&f.query, "query", nil, "query parameter, as name=value; may be given several times")
	fl.StringVar(&f.path, "path", "", "path below the service")

	return cmd
}

// target is the URL to ask.
func (f *explainFlags) target(edge, id string) (string, error) {
	query := url.Values{}

	for _, q := range f.query {
		name, value, found := strings.Cut(q, "=")
		if !found || name == "" {
			return "", fmt.Errorf("--query %q is not name=value", q)
		}

		query.Add(name, value)
	}

	target := edge + "/v1/infers/" + url.PathEscape(id) + slashed(f.path)
	if len(query) > 0 {
		target += "?" + query.Encode()
	}

	return target, nil
}

func (f *explainFlags) header() (map[string]string, error) {
	out := make(map[string]string, len(f.headers)+2)

	for _, h := range f.headers {
		name, value, found := strings.Cut(h, ":")
		if name = strings.TrimSpace(name); !found || name == "" {
			return nil, fmt.Errorf("--header %q is not 'Name: value'", h)
		}

		out[name] = strings.TrimSpace(value)
	}

	for _, c := range f.cookies {
		if name, _, found := strings.Cut(c, "="); !found || name == "" {
			return nil, fmt.Errorf("--cookie %q is not name=value", c)
		}
	}

	if len(f.cookies) > 0 {
		out["Cookie"] = strings.Join(f.cookies, "; ")
	}

	out["X-Sluice-Explain"] = "route"

	return out, nil
}

func (b *base) explain(cmd *cobra.Command, id string, f *explainFlags) error {
	if b.conn.edge == "" {
		return errors.New("no edge address: give --edge URL")
	}

	target, err := f.target(b.conn.edge, id)
	if err != nil {
		return err
	}

	header, err := f.header()
	if err != nil {
		return err
	}

	resp, err := b.conn.send(cmd.Context(), request{method: http.MethodGet, url: target, header: header})
	if err != nil {
		return err
	}

	var x explained
	if err := json.Unmarshal(resp.body, &x); err != nil {
		return fmt.Errorf("read the explanation: %w", err)
	}

	if b.output != "table" {
		var whole any
		if err := json.Unmarshal(resp.body, &whole); err != nil {
			return fmt.Errorf("read the explanation: %w", err)
		}

		return b.whole(cmd.OutOrStdout(), whole)
	}

	return b.showExplained(cmd.OutOrStdout(), &x)
}

// explained is the part of the gateway's explanation that the table shows.
type explained struct {
	Reason   string           `json:"reason"`
	Rule     string           `json:"rule"`
	Version  string           `json:"version"`
	Steps    []string         `json:"steps"`
	Versions []map[string]any `json:"versions"`
}

func (b *base) showExplained(w io.Writer, x *explained) error {
	for _, s := range x.Steps {
		_, _ = fmt.Fprintln(w, "-", s)
	}

	switch {
	case x.Version != "":
		_, _ = fmt.Fprintf(w, "=> version %s (by %s)\n\n", x.Version, x.Reason)
	case x.Reason == "none":
		_, _ = fmt.Fprint(w, "=> no version is able to serve\n\n")
	default:
		_, _ = fmt.Fprintf(w, "=> a version by %s\n\n", x.Reason)
	}

	return b.list(w, nil, x.Versions,
		field("VERSION", "version"), field("WEIGHT", "weight"), field("SHARE %", "share"), field("BALANCER", "balancer"),
		column{title: "INSTANCES", value: func(row map[string]any) string { return instanceSummary(row["instances"]) }})
}

// instanceSummary counts instances by status: "2 ready, 1 ejected".
func instanceSummary(v any) string {
	list, _ := v.([]any)
	counts := map[string]int{}

	for _, in := range list {
		if m, ok := in.(map[string]any); ok {
			counts[text(m["status"])]++
		}
	}

	var parts []string

	for _, status := range []string{"ready", "draining", "ejected", "cut off"} {
		if n := counts[status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, status))
		}
	}

	return firstOf(strings.Join(parts, ", "), "-")
}
