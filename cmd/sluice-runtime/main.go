// Command sluice-runtime is one model worker: it loads a model package, runs it with ONNX
// Runtime and answers predictions over HTTP until it is told to stop.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], environment{Stdout: os.Stdout, Stderr: os.Stderr}))
}
