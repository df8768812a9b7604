package ort_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/engine/enginetest"
	"github.com/sluice-gateway/sluice/runtime/ort"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

func TestEngineSuite(t *testing.T) {
	t.Parallel()

	enginetest.Suite(t, newEngine(t), write(t, onnxgen.Identity(onnxgen.Float, onnxgen.Batch(2))))
}

func TestProviders(t *testing.T) {
	t.Parallel()

	path := write(t, onnxgen.MLP(1, 4, 4, 2))

	if have := newEngine(t).Available(); !slices.Contains(have, "cpu") {
		t.Fatalf("available %v", have)
	}

	missing := ""
	for _, p := range []string{"openvino", "tensorrt", "cuda"} {
		if !slices.Contains(newEngine(t).Available(), p) {
			missing = p
		}
	}

	if missing == "" {
		t.Skip("this ONNX Runtime has every provider")
	}

	for name, tc := range map[string]struct {
		spec engine.LoadSpec
		fail string
		log  bool
	}{
		"default":          {engine.LoadSpec{}, "", false},
		"cpu":              {engine.LoadSpec{Providers: []string{"CPU"}, Strict: true}, "", false},
		"falls back":       {engine.LoadSpec{Providers: []string{missing}}, "", true},
		"falls back twice": {engine.LoadSpec{Providers: []string{missing, missing, "cpu"}}, "", true},
		"strict":           {engine.LoadSpec{Providers: []string{missing}, Strict: true}, `"` + missing + `" is not available`, false},
		"unknown":          {engine.LoadSpec{Providers: []string{"abacus"}}, `"abacus" is not known`, false},
		"threads":          {engine.LoadSpec{IntraOpThreads: 2, InterOpThreads: 2}, "", false},
		"arena limit":      {engine.LoadSpec{ArenaLimitBytes: 1 << 20}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var log bytes.Buffer

			e := newEngineLog(t, slog.New(slog.NewJSONHandler(&log, nil)))
			spec := tc.spec
			spec.Path = path

			s, err := e.Load(t.Context(), spec)
			if tc.fail != "" {
				f := fault.From(err)
				if f == nil || f.Code != fault.ModelInvalid || !strings.Contains(f.Message(), tc.fail) {
					t.Fatalf("got %v", err)
				}

				return
			}

			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()

			if s.Provider() != "cpu" {
				t.Errorf("provider %q", s.Provider())
			}

			var line struct{ Wanted, Used, Reason string }
			if tc.log && (json.Unmarshal(log.Bytes(), &line) != nil || line.Wanted != missing || line.Used != "cpu" || line.Reason == "") {
				t.Errorf("log %q", log.String())
			}

			if !tc.log && log.Len() > 0 {
				t.Errorf("log %q", log.String())
			}

			out, release, err := s.Run(t.Context(), []engine.Tensor{{Type: engine.FP32, Shape: []int64{3, 4}, Data: make([]byte, 48)}}, nil)
			if err != nil || !slices.Equal(out[0].Shape, []int64{3, 2}) {
				t.Fatalf("%+v, %v", out, err)
			}

			release()
		})
	}
}

func TestAutoEndsOnTheCPU(t *testing.T) {
	t.Parallel()

	s, err := newEngine(t).Load(t.Context(), engine.LoadSpec{Path: write(t, onnxgen.MLP(1, 4, 2)), Providers: []string{"auto"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	if p := s.Provider(); p != "cpu" && p != "cuda" {
		t.Errorf("provider %q", p)
	}
}

func TestOptimisedModelIsKept(t *testing.T) {
	t.Parallel()

	e := newEngine(t)
	dir := t.TempDir()
	spec := engine.LoadSpec{Path: write(t, onnxgen.MLP(3, 4, 8, 2)), OptimizedModelPath: filepath.Join(dir, "m")}
	in := []engine.Tensor{{Type: engine.FP32, Shape: []int64{1, 4}, Data: floats(1, -2, 3, -4)}}

	run := func() []byte {
		t.Helper()

		s, err := e.Load(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()

		out, release, err := s.Run(t.Context(), in, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer release()

		return bytes.Clone(out[0].Data)
	}

	want := run()

	kept, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(kept) != 2 || !strings.HasSuffix(kept[0], "-cpu.onnx") || kept[1] != kept[0]+".sha256" {
		t.Fatalf("kept %v, %v", kept, err)
	}

	// The second load must read the kept file: give it one with other weights.
	other := onnxgen.MLP(4, 4, 8, 2)
	if err := other.WriteFile(kept[0]); err != nil {
		t.Fatal(err)
	}

	hash := sha256.Sum256(other.Bytes())
	writeFile(t, kept[1], hex.EncodeToString(hash[:]))

	if bytes.Equal(run(), want) {
		t.Error("the kept model was not used")
	}

	// Whatever becomes of the files, the answer is right and they are made again.
	for what, damage := range map[string]func(){
		"rubbish":            func() { writeFile(t, kept[0], "rubbish") },
		"other weights":      func() { writeFile(t, kept[0], string(onnxgen.MLP(5, 4, 8, 2).Bytes())) },
		"nothing":            func() { writeFile(t, kept[0], "") },
		"without its hash":   func() { _ = os.Remove(kept[1]) },
		"hash without model": func() { _ = os.Remove(kept[0]) },
	} {
		damage()

		if !bytes.Equal(run(), want) {
			t.Errorf("%s: another answer", what)
		}

		data, err1 := os.ReadFile(kept[0])
		hash, err2 := os.ReadFile(kept[1])
		sum := sha256.Sum256(data)

		if err1 != nil || err2 != nil || string(hash) != hex.EncodeToString(sum[:]) {
			t.Errorf("%s: not made again: %v, %v", what, err1, err2)
		}
	}

	if left, err := filepath.Glob(filepath.Join(dir, "*.tmp*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLibraryIsFoundWithoutBeingNamed(t *testing.T) {
	t.Parallel()

	e, err := ort.New(ort.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("%v (run make setup)", err)
	}

	if !strings.HasPrefix(e.Name(), "onnxruntime 1.") {
		t.Errorf("name %q", e.Name())
	}

	for range 2 {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}
