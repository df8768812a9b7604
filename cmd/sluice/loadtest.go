package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/version"
	"github.com/sluice-gateway/sluice/loadtest/command"
)

// exitMissed is the status of a load test whose SLO was not held.
const exitMissed = 3

// loadtestCommand maps the errors of the load tool to exit statuses.
func loadtestCommand() *cobra.Command {
	cmd := command.New(version.String())
	run, args := cmd.RunE, cmd.Args

	cmd.Args = func(cmd *cobra.Command, list []string) error { return statusOf(args(cmd, list)) }
	cmd.RunE = func(cmd *cobra.Command, list []string) error { return statusOf(run(cmd, list)) }

	return cmd
}

func statusOf(err error) error {
	var wrong *command.UsageError

	switch {
	case errors.As(err, &wrong):
		return usageError{err}
	case errors.Is(err, command.ErrMissed):
		return exitCodeError(exitMissed)
	default:
		return err
	}
}
