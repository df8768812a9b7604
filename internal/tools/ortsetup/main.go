// Command ortsetup fetches the shared library of ONNX Runtime for "make setup".
//
// It asks npm for the package onnxruntime-node, or pip for the wheel onnxruntime, takes the
// library out without running anything of the package, checks its pinned SHA-256 and
// moves it to its place in one step. When the right file is there it does nothing; when
// ONNXRUNTIME_LIB is set it only checks that the file exists. With -gpu it asks pip for the wheel
// onnxruntime-gpu, for "make setup-gpu", and keeps its libraries apart from the usual one.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout)

	stop()

	if err != nil {
		fmt.Fprintf(os.Stderr, "setup: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, out io.Writer) error {
	flags := flag.NewFlagSet("ortsetup", flag.ContinueOnError)
	root := flags.String("root", ".", "root of the repository")
	wait := flags.Duration("timeout", 15*time.Minute, "how long one package client may take")
	gpu := flags.Bool("gpu", false, "fetch the build with the providers for CUDA and TensorRT, beside the usual one")
	target := flags.String("arch", runtime.GOARCH, "architecture to fetch for: amd64 or arm64")

	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("read flags: %w", err)
	}

	s := setup{
		root: *root, gpu: *gpu, os: runtime.GOOS, arch: *target, pins: pinned(), gpuPins: pinnedGPU(),
		getenv: getenv, out: out, timeout: *wait,
	}

	return s.run(ctx)
}
