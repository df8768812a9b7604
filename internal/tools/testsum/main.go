// Command testsum runs "go test -json", shows one line per package and the output of what
// failed, and closes with a line such as "812 passed, 0 failed, 3 skipped".
//
//	testsum go test -json -race ./...
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)

	stop()

	if err != nil {
		fmt.Fprintf(os.Stderr, "testsum: %v\n", err)
		os.Exit(1)
	}
}

// run starts the command and reports its stream; an error means that something failed.
func run(ctx context.Context, argv []string, out, errOut io.Writer) error {
	if len(argv) == 0 {
		return errors.New("give the command to run, such as: testsum go test -json PACKAGES")
	}

	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // running the given command is what this is for
	cmd.Stderr = errOut
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second

	stream, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("connect to the command: %w", err)
	}

	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the command: %w", err)
	}

	sum, readErr := summarize(stream, out)
	waitErr := cmd.Wait()

	if _, err := fmt.Fprintln(out, sum.line()); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}

	switch {
	case readErr != nil:
		return readErr
	case sum.failed > 0:
		return errors.New("tests failed")
	case waitErr != nil:
		return fmt.Errorf("the command failed: %w", waitErr)
	case sum.passed == 0:
		return errors.New("no test ran")
	default:
		return nil
	}
}
