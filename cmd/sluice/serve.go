package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/control/launch"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/version"
)

type serveFlags struct {
	config, data                          string
	edgeHTTP, edgeHTTPS, controlAt, opsAt string
	check, allowDamaged                   bool
}

func serveCommand() *cobra.Command {
	return roleCommand(roleAll, "Run everything on this machine: edge, control plane and model workers", `  sluice serve --config configs/quickstart.yaml
  sluice serve --config sluice.yaml --check`)
}

func gatewayCommand() *cobra.Command {
	return roleCommand(roleGateway, "Run an edge that follows the state in an external etcd", `  sluice gateway --config gateway.yaml`)
}

func controlCommand() *cobra.Command {
	return roleCommand(roleControl, "Run the control plane and its model workers with the state in an external etcd", `  sluice control --config control.yaml`)
}

func roleCommand(r role, short, example string) *cobra.Command {
	var f serveFlags

	cmd := &cobra.Command{
		Use: string(r), Short: short, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := defaultSettings()
			if err := f.apply(&s); err != nil {
				return usageError{err}
			}

			if f.check {
				_, _ = fmt.Fprintln(cmd.OutOrStdout(), "the configuration is good")

				return nil
			}

			return serve(cmd.Context(), r, &s, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}

	fl := cmd.Flags()
	fl.StringVar(&f.config, "config", "", "configuration file")
	fl.StringVar(&f.data, "data", "", "data directory (default: data_dir of the configuration)")
	fl.StringVar(&f.edgeHTTP, "edge-http", "", "address of the edge for HTTP, host:port")
	fl.StringVar(&f.edgeHTTPS, "edge-https", "", "address of the edge for HTTPS, host:port")
	fl.StringVar(&f.controlAt, "control", "", "address of the control API, host:port")
	fl.StringVar(&f.opsAt, "ops", "", "address for metrics, health and profiles, host:port")
	if r == roleAll {
		fl.BoolVar(&f.allowDamaged, "allow-damaged", false, "start although the package of a service is damaged")
	}

	fl.BoolVar(&f.check, "check", false, "validate the configuration and exit")

	return cmd
}

// apply loads the file and puts the flags over it.
func (f *serveFlags) apply(s *settings) error {
	fileErr := s.load(f.config)
	s.AllowDamaged = f.allowDamaged

	for _, o := range []struct {
		flag string
		dst  *string
	}{
		{f.data, &s.DataDir},
		{f.edgeHTTP, &s.Edge.HTTP},
		{f.edgeHTTPS, &s.Edge.HTTPS},
		{f.controlAt, &s.Control.Address},
		{f.opsAt, &s.Ops.Address},
	} {
		if o.flag != "" {
			*o.dst = o.flag
		}
	}

	if fileErr != nil {
		return fileErr
	}

	if err := s.Validate(); err != nil {
		return err
	}

	// Rooms compare it with other paths, which are absolute.
	dir, err := filepath.Abs(s.DataDir)
	if err != nil {
		return config.At("data_dir", "%v", err)
	}

	s.DataDir = dir

	return nil
}

// serve builds the whole, runs it until a signal, and stops it in order.
func serve(ctx context.Context, r role, s *settings, stdout, stderr io.Writer) error {
	log, level := newLogger(s.Log, stderr)
	log.Info("starting", slog.String("version", version.String()), slog.String("data_dir", s.DataDir), slog.String("log_level", level.String()))

	ctx, stop := context.WithCancel(ctx)
	defer stop()

	// Access lines are at the level of information; the edge writes them past slog, in batches.
	access := stderr
	if level > slog.LevelInfo {
		access = nil
	}

	sys, err := build(ctx, r, s, log, access)
	if err != nil {
		return err
	}
	defer sys.close()

	var hurried atomic.Bool

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)

	defer signal.Stop(signals)

	done := make(chan struct{})
	defer close(done)

	go func() {
		for n := 0; ; n++ {
			select {
			case sig := <-signals:
				log.Info("signal", slog.String("signal", sig.String()))
			case <-done:
				return
			}

			if n == 0 {
				stop()

				continue
			}

			hurried.Store(true)
			sys.hurry()
		}
	}()

	err = sys.run(ctx, stdout)
	if hurried.Load() && err == nil {
		err = errors.New("stopped at once by a second signal")
	}

	if err == nil {
		log.Info("stopped")
	}

	return err
}

func newLogger(s logSettings, w io.Writer) (*slog.Logger, slog.Level) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.Level)); err != nil {
		level = slog.LevelInfo // Validate has refused anything else
	}

	opts := &slog.HandlerOptions{Level: level}
	if s.Format == "text" {
		return slog.New(slog.NewTextHandler(w, opts)), level
	}

	return slog.New(slog.NewJSONHandler(w, opts)), level
}

// superviseCommand is what the launcher runs around custom engines; users do not call it.
func superviseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "supervise", Hidden: true, DisableFlagParsing: true,
		Short: "Run a command that ends when the parent does",
		RunE: func(cmd *cobra.Command, args []string) error {
			if code := launch.Supervise(args, cmd.ErrOrStderr()); code != 0 {
				return exitCodeError(code)
			}

			return nil
		},
	}
}

// exitCodeError passes the status of a supervised command on.
type exitCodeError int

// Error implements error.
func (e exitCodeError) Error() string { return fmt.Sprintf("the command ended with status %d", int(e)) }
