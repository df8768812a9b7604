package ort

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	ortgo "github.com/yalue/onnxruntime_go"
)

// The binding has one environment for each process. It is never taken down: ONNX Runtime's
// threads outlive any user of it.
//
//nolint:gochecknoglobals // as the binding has it
var environment struct {
	mu      sync.Mutex
	library string
}

// startBinding starts the binding's environment over the library at path, once.
func startBinding(path string) error {
	environment.mu.Lock()
	defer environment.mu.Unlock()

	if ortgo.IsInitialized() {
		if !sameFile(environment.library, path) {
			return fmt.Errorf("open ONNX Runtime %s: this process has opened %s already", path, environment.library)
		}

		return nil
	}

	ortgo.SetSharedLibraryPath(path)

	// What ONNX Runtime would write to the standard error is in the errors, too.
	if err := ortgo.InitializeEnvironment(ortgo.WithLogLevelFatal()); err != nil {
		return fmt.Errorf("open ONNX Runtime %s: %w", path, err)
	}

	environment.library = path

	if err := ortgo.DisableTelemetry(); err != nil {
		return fmt.Errorf("open ONNX Runtime %s: %w", path, err)
	}

	return nil
}

func sameFile(a, b string) bool {
	if a == b {
		return true
	}

	ia, errA := os.Stat(a)
	ib, errB := os.Stat(b)

	return errA == nil && errB == nil && os.SameFile(ia, ib)
}

// said is what ONNX Runtime itself said, without what the binding put before it.
func said(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return strings.TrimSpace(err.Error())
		}

		err = inner
	}
}
