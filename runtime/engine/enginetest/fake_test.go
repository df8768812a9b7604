package enginetest_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/engine/enginetest"
)

func TestFakeIsAnEngine(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "echo.onnx")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	enginetest.Suite(t, &enginetest.Engine{Open: func(ctx context.Context, s engine.LoadSpec) (enginetest.Model, error) {
		if err := ctx.Err(); err != nil {
			return enginetest.Model{}, err
		}

		if _, err := os.Stat(s.Path); err != nil {
			return enginetest.Model{}, fault.Wrap(fault.ModelInvalid, err, "no file")
		}

		return enginetest.Echo(2), nil
	}}, path)
}
