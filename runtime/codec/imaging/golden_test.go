package imaging_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-gateway/sluice/runtime/codec/imaging"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/spec"
)

// The sample model's own reference vectors, made by the program that trained it.
const digits = "../../../configs/models/digits"

func read(t *testing.T, path ...string) []byte {
	t.Helper()

	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}

	return b
}

func TestPipelineAgreesWithTheTrainingProgram(t *testing.T) {
	t.Parallel()

	cfg, err := spec.ParsePackageConfig(read(t, digits, "config.json"))
	if err != nil {
		t.Fatal(err)
	}

	p, err := imaging.New(*cfg.Serving.Preprocess[0].Image, engine.FP32, 0, imaging.NewGate(1<<28))
	if err != nil {
		t.Fatal(err)
	}

	var golden []struct {
		File      string
		Input     []float64
		Tolerance float64
	}

	if err := json.Unmarshal(read(t, digits, "testdata", "golden.json"), &golden); err != nil || len(golden) == 0 {
		t.Fatalf("%d vectors, %v", len(golden), err)
	}

	for _, g := range golden {
		got, err := p.Append(t.Context(), nil, read(t, digits, "testdata", g.File))
		if err != nil || len(got) != 4*len(g.Input) {
			t.Errorf("%s: %d bytes, %v", g.File, len(got), err)

			continue
		}

		worst := 0.0

		for i, want := range g.Input {
			v := float64(math.Float32frombits(binary.LittleEndian.Uint32(got[4*i:])))
			worst = max(worst, math.Abs(v-want))
		}

		if worst > g.Tolerance {
			t.Errorf("%s: differs by %g, tolerance %g", g.File, worst, g.Tolerance)
		}
	}
}
