package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/internal/version"
	"github.com/sluice-gateway/sluice/loadtest/command"
)

// Statuses of a load test that could be done.
const (
	exitMissed = 3 // the SLO was not held
	exitWorse  = 4 // it is worse than its baseline
)

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
	case errors.Is(err, command.ErrWorse):
		return exitCodeError(exitWorse)
	default:
		return err
	}
}
