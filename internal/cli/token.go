package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"
)

func tokenCommand() *cobra.Command {
	b := &base{}
	cmd := &cobra.Command{Use: "token", Short: "Issue and revoke tokens"}
	b.flags(cmd)
	cmd.AddCommand(tokenCreate(b), tokenRevoke(b))

	return cmd
}

func tokenCreate(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "create", Short: "Print a project token, valid for 24 hours", Args: cobra.NoArgs,
		Example: `  TOKEN=$(sluice token create)`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b.conn.token = ""
			if err := b.conn.authenticate(cmd.Context()); err != nil {
				return err
			}

			if b.output == "table" {
				_, _ = fmt.Fprintln(cmd.OutOrStdout(), b.conn.token)

				return nil
			}

			return b.whole(cmd.OutOrStdout(), map[string]any{"token": b.conn.token, "project_id": b.conn.project})
		},
	}
}

func tokenRevoke(b *base) *cobra.Command {
	return &cobra.Command{
		Use: "revoke [TOKEN]", Short: "Revoke a token (default: the one given by --token)", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			token := b.conn.token
			if len(args) == 1 {
				token = args[0]
			}

			if token == "" {
				return errors.New("no token to revoke")
			}

			if err := b.conn.authenticate(cmd.Context()); err != nil {
				return err
			}

			_, err := b.conn.send(cmd.Context(), request{
				method: http.MethodDelete, url: b.conn.control + "/v3/auth/tokens", header: map[string]string{"X-Subject-Token": token},
			})
			if err != nil {
				return err
			}

			_, _ = fmt.Fprintln(cmd.OutOrStdout(), "revoked")

			return nil
		},
	}
}

// isTerminal reports whether w is a character device.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}

	info, err := f.Stat()

	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
