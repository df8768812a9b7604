package cli

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

// serviceUpgrade is a command that intervenes in the running upgrade of a service.
func serviceUpgrade(b *base, action, short, done string) *cobra.Command {
	return b.serviceVerb(action+" NAME|ID", short, func(cmd *cobra.Command, id string) error {
		err := b.conn.api(cmd.Context(), http.MethodPut, "/services/"+url.PathEscape(id), map[string]any{"upgrade_action": action}, nil)
		if err != nil {
			return err
		}

		_, _ = fmt.Fprintln(cmd.OutOrStdout(), done)

		return nil
	})
}

// serviceUpdates shows how the updates of a service ended.
func serviceUpdates(b *base) *cobra.Command {
	return b.serviceVerb("updates NAME|ID", "Show the updates of a service and how they ended, newest first", func(cmd *cobra.Command, id string) error {
		whole := map[string]any{}
		if err := b.conn.api(cmd.Context(), http.MethodGet, "/services/"+url.PathEscape(id)+"/logs", nil, &whole); err != nil {
			return err
		}

		return b.list(cmd.OutOrStdout(), whole, rows(whole, "logs"),
			moment("TIME", "update_time"), field("RESULT", "result"), field("READY", "success_num"), field("MISSING", "failed_num"), field("REASON", "result_detail"))
	})
}
