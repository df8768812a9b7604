package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func modelCommand() *cobra.Command {
	b := &base{}
	cmd := &cobra.Command{Use: "model", Short: "Publish, list and delete models"}
	b.flags(cmd)
	cmd.AddCommand(modelCreate(b), modelList(b), modelGet(b), modelDelete(b))

	return cmd
}

func modelCreate(b *base) *cobra.Command {
	var (
		version, kind, description string
		wait                       time.Duration
	)

	cmd := &cobra.Command{
		Use:   "create NAME SOURCE",
		Short: "Publish a model package from a directory or URL and wait until it is checked",
		Example: `  sluice model create digits ./configs/models/digits
  sluice model create digits ./configs/models/digits --version 1.0.1`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			source, err := sourceLocation(args[1])
			if err != nil {
				return err
			}

			body := map[string]any{"model_name": args[0], "model_version": version, "model_type": kind, "source_location": source}
			if description != "" {
				body["description"] = description
			}

			var made struct {
				ModelID string `json:"model_id"`
			}
			if err := b.conn.api(cmd.Context(), http.MethodPost, "/models", body, &made); err != nil {
				return err
			}

			whole, err := b.waitModel(cmd, made.ModelID, wait)
			if err != nil {
				return err
			}

			return b.list(cmd.OutOrStdout(), whole, []map[string]any{whole}, modelColumns()...)
		},
	}
	cmd.Flags().StringVar(&version, "version", "1.0.0", "version of the model, three numbers")
	cmd.Flags().StringVar(&kind, "type", "ONNX", "model type: ONNX, Custom or External")
	cmd.Flags().StringVar(&description, "description", "", "description")
	cmd.Flags().DurationVar(&wait, "wait", 5*time.Minute, "how long to wait until the model is published")

	return cmd
}

// sourceLocation makes a local path absolute, because the control process has another working directory.
func sourceLocation(source string) (string, error) {
	if strings.Contains(source, "://") {
		return source, nil
	}

	if _, err := os.Stat(source); err != nil {
		return "", fmt.Errorf("model package: %w", err)
	}

	abs, err := filepath.Abs(source)
	if err != nil {
		return "", fmt.Errorf("model package: %w", err)
	}

	return abs, nil
}

// waitModel shows progress until the model is published or refused.
func (b *base) waitModel(cmd *cobra.Command, id string, wait time.Duration) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(cmd.Context(), wait)
	defer cancel()

	line := newProgress(cmd.ErrOrStderr())
	defer line.end()

	began := time.Now()

	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		whole := map[string]any{}
		if err := b.conn.api(ctx, http.MethodGet, "/models/"+url.PathEscape(id), nil, &whole); err != nil {
			return nil, err
		}

		switch whole["model_status"] {
		case "published":
			return whole, nil
		case "failed", "building_failed":
			reason := firstOf(plainString(whole["error_msg"]), plainString(whole["fail_reason"]), "no reason given")

			return nil, errors.New("the model was refused: " + reason)
		}

		line.step(publishingText(whole), fetchStage(whole), time.Since(began))

		if err := sleep(ctx, pause); err != nil {
			return nil, fmt.Errorf("the model is still %v after %v", publishingText(whole), wait)
		}
	}
}

func fetchStage(model map[string]any) string {
	p, ok := model["fetch_progress"].(map[string]any)
	if !ok {
		return ""
	}

	return plainString(p["stage"])
}

// publishingText is the status of a model and, while it is on its way, how far it is.
func publishingText(model map[string]any) string {
	status := firstOf(plainString(model["model_status"]), "-")

	p, ok := model["fetch_progress"].(map[string]any)
	if !ok {
		return status
	}

	status += ", " + plainString(p["stage"])
	done, _ := p["bytes"].(float64)
	total, _ := p["total"].(float64)

	switch {
	case total > 0 && done < total:
		return fmt.Sprintf("%s %s of %s (%.0f%%)", status, size(done), size(total), 100*done/total)
	case done > 0:
		return status + " " + size(done)
	default:
		return status
	}
}

// size is a number of bytes for people.
func size(n float64) string {
	const step = 1000

	units := []string{"B", "kB", "MB", "GB", "TB"}
	for n >= step && len(units) > 1 {
		n /= step
		units = units[1:]
	}

	if units[0] == "B" || n >= 100 {
		return fmt.Sprintf("%.0f %s", n, units[0])
	}

	return fmt.Sprintf("%.1f %s", n, units[0])
}

func plainString(v any) string {
	s, ok := v.(string)
	if !ok {
		return ""
	}

	return s
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()

	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func modelColumns() []column {
	return []column{
		field("ID", "model_id"), field("NAME", "model_name"), field("VERSION", "model_version"),
		field("TYPE", "model_type"),
		{title: "STATUS", value: publishingText},
		field("SIZE", "model_size"), moment("CREATED", "create_at"),
	}
}

func modelList(b *base) *cobra.Command {
	var name string

	cmd := &cobra.Command{
		Use: "list", Short: "List models", Args: cobra.NoArgs, Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			if name != "" {
				q.Set("model_name", name)
			}

			whole := map[string]any{}
			if err := b.conn.api(cmd.Context(), http.MethodGet, "/models?"+q.Encode(), nil, &whole); err != nil {
				return err
			}

			return b.list(cmd.OutOrStdout(), whole, rows(whole, "models"), modelColumns()...)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "only models whose name contains this")

	return cmd
}

func modelGet(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "get NAME|ID", Short: "Show a model", Args: cobra.ExactArgs(1), ValidArgsFunction: b.complete("/models", "models", "model_name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := b.modelID(cmd.Context(), args[0])
			if err != nil {
				return err
			}

			whole := map[string]any{}
			if err := b.conn.api(cmd.Context(), http.MethodGet, "/models/"+url.PathEscape(id), nil, &whole); err != nil {
				return err
			}

			return b.whole(cmd.OutOrStdout(), whole)
		},
	}
}

func modelDelete(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME|ID", Short: "Delete a model that no service uses", Args: cobra.ExactArgs(1), Aliases: []string{"rm"},
		ValidArgsFunction: b.complete("/models", "models", "model_name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := b.modelID(cmd.Context(), args[0])
			if err != nil {
				return err
			}

			var out struct {
				Failed []struct {
					Code string `json:"error_code"`
					Msg  string `json:"error_msg"`
				} `json:"delete_failed_list"`
			}
			if err := b.conn.api(cmd.Context(), http.MethodDelete, "/models/"+url.PathEscape(id), nil, &out); err != nil {
				return err
			}

			if len(out.Failed) > 0 {
				return fmt.Errorf("not deleted: %s (%s)", out.Failed[0].Msg, out.Failed[0].Code)
			}

			_, _ = fmt.Fprintln(cmd.OutOrStdout(), "deleted", args[0])

			return nil
		},
	}
}

// modelID finds a model by id, by name, or by name/version. Of several versions the newest is taken.
func (b *base) modelID(ctx context.Context, ref string) (string, error) {
	name, version, _ := strings.Cut(ref, "/")
	whole := map[string]any{}

	q := url.Values{"model_name": {name}, "exact_match": {"true"}, "sort_by": {"create_at"}, "order": {"desc"}}
	if version != "" {
		q.Set("model_version", version)
	}

	if err := b.conn.api(ctx, http.MethodGet, "/models?"+q.Encode(), nil, &whole); err != nil {
		return "", err
	}

	for _, m := range rows(whole, "models") {
		if m["model_name"] == name && (version == "" || m["model_version"] == version) {
			return plainString(m["model_id"]), nil
		}
	}

	return ref, nil // then it is an id, or the API says that it does not exist
}

// complete offers the names of objects for shell completion.
func (b *base) complete(path, list, key string) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 || b.conn.prepare() != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}

		whole := map[string]any{}
		if b.conn.api(cmd.Context(), http.MethodGet, path, nil, &whole) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}

		var names []string
		for _, r := range rows(whole, list) {
			names = append(names, plainString(r[key]))
		}

		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
