package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/spf13/cobra"
)

const credentialsPath = "/v3.0/OS-CREDENTIAL/credentials" //nolint:gosec // a path, no credential

func keyCommand() *cobra.Command {
	b := &base{}
	cmd := &cobra.Command{Use: "key", Short: "Manage access keys (AK/SK)"}
	b.flags(cmd)
	cmd.AddCommand(keyCreate(b), keyList(b), keyDelete(b))

	return cmd
}

// iam calls an operation that stands outside of projects.
func (c *connection) iam(ctx context.Context, method, path string, in, out any) error {
	if err := c.authenticate(ctx); err != nil {
		return err
	}

	return c.json(ctx, method, c.control+path, in, out)
}

func keyCreate(b *base) *cobra.Command {
	var user string

	cmd := &cobra.Command{
		Use: "create", Short: "Make an access key; its secret is shown this once", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			credential := map[string]any{}
			if user != "" {
				id, err := b.userID(cmd.Context(), user)
				if err != nil {
					return err
				}

				credential["user_id"] = id
			}

			whole := map[string]any{}
			if err := b.conn.iam(cmd.Context(), http.MethodPost, credentialsPath, map[string]any{"credential": credential}, &whole); err != nil {
				return err
			}

			return b.one(cmd, whole, "credential", field("ACCESS KEY", "access"), field("SECRET KEY", "secret"), field("USER", "user_id"))
		},
	}
	cmd.Flags().StringVar(&user, "for", "", "user that the key is for, name or id (default: yourself)")

	return cmd
}

// one prints the object under key as a table of one row, or whole.
func (b *base) one(cmd *cobra.Command, whole map[string]any, key string, columns ...column) error {
	row, ok := whole[key].(map[string]any)
	if !ok {
		return fmt.Errorf("the answer has no %q", key)
	}

	return b.list(cmd.OutOrStdout(), whole, []map[string]any{row}, columns...)
}

func keyList(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List access keys", Args: cobra.NoArgs, Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			whole := map[string]any{}
			if err := b.conn.iam(cmd.Context(), http.MethodGet, credentialsPath, nil, &whole); err != nil {
				return err
			}

			return b.list(cmd.OutOrStdout(), whole, rows(whole, "credentials"),
				field("ACCESS KEY", "access"), field("USER", "user_id"), field("STATUS", "status"), field("CREATED", "create_time"))
		},
	}
}

func keyDelete(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "delete ACCESS_KEY", Short: "Delete an access key; it stops working at once", Args: cobra.ExactArgs(1), Aliases: []string{"rm"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := b.conn.iam(cmd.Context(), http.MethodDelete, credentialsPath+"/"+url.PathEscape(args[0]), nil, nil); err != nil {
				return err
			}

			_, _ = fmt.Fprintln(cmd.OutOrStdout(), "deleted", args[0])

			return nil
		},
	}
}

func userCommand() *cobra.Command {
	b := &base{}
	cmd := &cobra.Command{Use: "user", Short: "Manage users and what they may do"}
	b.flags(cmd)
	cmd.AddCommand(userCreate(b), userList(b), userDelete(b), userGrant(b, "grant", http.MethodPut), userGrant(b, "revoke", http.MethodDelete))

	return cmd
}

func userCreate(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "create NAME", Short: "Make a user; the password comes from $SLUICE_NEW_PASSWORD", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			user := map[string]any{"name": args[0]}
			if p := os.Getenv("SLUICE_NEW_PASSWORD"); p != "" {
				user["password"] = p
			}

			whole := map[string]any{}
			if err := b.conn.iam(cmd.Context(), http.MethodPost, "/v3/users", map[string]any{"user": user}, &whole); err != nil {
				return err
			}

			return b.one(cmd, whole, "user", field("ID", "id"), field("NAME", "name"), field("ENABLED", "enabled"))
		},
	}
}

func userList(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List users", Args: cobra.NoArgs, Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			whole := map[string]any{}
			if err := b.conn.iam(cmd.Context(), http.MethodGet, "/v3/users", nil, &whole); err != nil {
				return err
			}

			return b.list(cmd.OutOrStdout(), whole, rows(whole, "users"), field("ID", "id"), field("NAME", "name"), field("ENABLED", "enabled"))
		},
	}
}

func userDelete(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME|ID", Short: "Delete a user with all access keys", Args: cobra.ExactArgs(1), Aliases: []string{"rm"},
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := b.userID(cmd.Context(), args[0])
			if err != nil {
				return err
			}

			if err := b.conn.iam(cmd.Context(), http.MethodDelete, "/v3/users/"+url.PathEscape(id), nil, nil); err != nil {
				return err
			}

			_, _ = fmt.Fprintln(cmd.OutOrStdout(), "deleted", args[0])

			return nil
		},
	}
}

func userGrant(b *base, verb, method string) *cobra.Command {
	short := "Give a user a role in the project: administrator, operator or caller"
	if method == http.MethodDelete {
		short = "Take a role in the project from a user"
	}

	return &cobra.Command{
		Use: verb + " NAME|ID ROLE", Short: short, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := b.userID(cmd.Context(), args[0])
			if err != nil {
				return err
			}

			path := "/v3/projects/" + url.PathEscape(b.conn.project) + "/users/" + url.PathEscape(id) + "/roles/" + url.PathEscape(args[1])

			return b.conn.iam(cmd.Context(), method, path, nil, nil)
		},
	}
}

// userID finds a user by name; what is not a name is taken as an id.
func (b *base) userID(ctx context.Context, ref string) (string, error) {
	whole := map[string]any{}
	if err := b.conn.iam(ctx, http.MethodGet, "/v3/users", nil, &whole); err != nil {
		return "", err
	}

	for _, u := range rows(whole, "users") {
		if u["name"] == ref {
			return plainString(u["id"]), nil
		}
	}

	return ref, nil
}
