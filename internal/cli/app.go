package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

const appsPath = "/app-auth/apps"

func appCommand() *cobra.Command {
	b := &base{}
	cmd := &cobra.Command{Use: "app", Short: "Manage apps, their secrets and codes, and what they may call"}
	b.flags(cmd)
	cmd.AddCommand(appCreate(b), appList(b), appDelete(b), appCode(b), appSecret(b), appGrant(b))

	return cmd
}

func appColumns() []column {
	return []column{field("ID", "app_id"), field("NAME", "app_name"), field("KEY", "app_key"), moment("CREATED", "created_at")}
}

func appCreate(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "create NAME", Short: "Make an app; its secret is shown this once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			whole := map[string]any{}
			if err := b.conn.api(cmd.Context(), http.MethodPost, appsPath, map[string]any{"app_name": args[0]}, &whole); err != nil {
				return err
			}

			return b.one(cmd, whole, "app", append(appColumns()[:3:3], field("SECRET", "app_secret"))...)
		},
	}
}

func appList(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List apps", Args: cobra.NoArgs, Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			whole := map[string]any{}
			if err := b.conn.api(cmd.Context(), http.MethodGet, appsPath, nil, &whole); err != nil {
				return err
			}

			return b.list(cmd.OutOrStdout(), whole, rows(whole, "apps"), appColumns()...)
		},
	}
}

// appVerb is a command that takes one app by name or id.
func (b *base) appVerb(use, short string, run func(cmd *cobra.Command, id string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: b.complete(appsPath, "apps", "app_name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := b.appID(cmd.Context(), args[0])
			if err != nil {
				return err
			}

			return run(cmd, id)
		},
	}
}

func appDelete(b *base) *cobra.Command {
	return b.appVerb("delete NAME|ID", "Delete an app", func(cmd *cobra.Command, id string) error {
		if err := b.conn.api(cmd.Context(), http.MethodDelete, appsPath+"/"+url.PathEscape(id), nil, nil); err != nil {
			return err
		}

		_, _ = fmt.Fprintln(cmd.OutOrStdout(), "deleted", id)

		return nil
	})
}

func appCode(b *base) *cobra.Command {
	return b.appVerb("code NAME|ID", "Add a code to an app (at most 5); it is shown this once", func(cmd *cobra.Command, id string) error {
		whole := map[string]any{}
		if err := b.conn.api(cmd.Context(), http.MethodPost, appsPath+"/"+url.PathEscape(id)+"/app-code", map[string]any{}, &whole); err != nil {
			return err
		}

		return b.one(cmd, whole, "app", field("ID", "app_id"), column{title: "CODE", value: func(row map[string]any) string {
			codes, ok := row["app_codes"].([]any)
			if !ok || len(codes) == 0 {
				return "-"
			}

			return text(codes[len(codes)-1])
		}})
	})
}

func appSecret(b *base) *cobra.Command {
	return b.appVerb("reset-secret NAME|ID", "Give an app a new secret; the old one stops working at once", func(cmd *cobra.Command, id string) error {
		whole := map[string]any{}
		if err := b.conn.api(cmd.Context(), http.MethodPut, appsPath+"/"+url.PathEscape(id)+"/app-secret", map[string]any{}, &whole); err != nil {
			return err
		}

		return b.one(cmd, whole, "app", field("ID", "app_id"), field("KEY", "app_key"), field("SECRET", "app_secret"))
	})
}

func appGrant(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "grant APP SERVICE", Short: "Let an app call a service", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			app, err := b.appID(cmd.Context(), args[0])
			if err != nil {
				return err
			}

			service, err := b.serviceID(cmd.Context(), args[1])
			if err != nil {
				return err
			}

			path, err := b.grantPath(cmd.Context(), service)
			if err != nil {
				return err
			}

			whole := map[string]any{}
			in := map[string]any{"apps": []any{map[string]any{"app_id": app}}}

			if err := b.conn.api(cmd.Context(), http.MethodPost, path, in, &whole); err != nil {
				return err
			}

			return b.list(cmd.OutOrStdout(), whole, rows(whole, "auth_result"),
				field("APP", "app_id"), field("SUCCESS", "success"), field("REASON", "reason"))
		},
	}
}

// grantPath is where apps are let in: a service has one API, which the first grant makes.
func (b *base) grantPath(ctx context.Context, service string) (string, error) {
	path := "/services/" + url.PathEscape(service)
	whole := map[string]any{}

	if err := b.conn.api(ctx, http.MethodGet, path+"/app-auth-apis", nil, &whole); err != nil {
		return "", err
	}

	for _, a := range rows(whole, "apis") {
		return path + "/app-auth-apis/" + url.PathEscape(plainString(a["api_id"])) + "/app-auth-api", nil
	}

	return path + "/app-auth-api", nil
}

// appID finds an app by name; what is not a name is taken as an id.
func (b *base) appID(ctx context.Context, ref string) (string, error) {
	whole := map[string]any{}
	if err := b.conn.api(ctx, http.MethodGet, appsPath+"?app_name="+url.QueryEscape(ref), nil, &whole); err != nil {
		return "", err
	}

	for _, a := range rows(whole, "apps") {
		if a["app_name"] == ref {
			return plainString(a["app_id"]), nil
		}
	}

	return ref, nil
}
