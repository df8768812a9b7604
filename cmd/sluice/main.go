// Command sluice is the gateway, the control plane, the load tool and the client of Sluice.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/cli"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/version"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// Exit statuses.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2 // flags or configuration
)

// usageError is a mistake in flags or configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot() //nolint:contextcheck // commands have it from cobra
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)

	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}

	var code exitCodeError
	if errors.As(err, &code) {
		return int(code)
	}

	for _, e := range config.Mistakes(unwrapUsage(err)) {
		_, _ = fmt.Fprintln(stderr, "sluice:", strings.TrimSpace(e.Error()))
	}

	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}

	return exitError
}

func unwrapUsage(err error) error {
	var usage usageError
	if errors.As(err, &usage) {
		return usage.error
	}

	return err
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "sluice",
		Short:         "Inference serving gateway with its own model runtime",
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(serveCommand(), gatewayCommand(), controlCommand(), loadtestCommand(), superviseCommand(), backupCommand(), restoreCommand())
	root.AddCommand(cli.Commands()...)

	return root
}
