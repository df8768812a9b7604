package enginetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// Suite checks what every engine must do. echo is the path of a model that copies the FP32
// input "x" of shape [-1,2] to the output "y".
func Suite(t *testing.T, e engine.Engine, echo string) {
	t.Helper()

	t.Run("LoadOfNothingIsModelInvalid", func(t *testing.T) {
		_, err := e.Load(t.Context(), engine.LoadSpec{Path: filepath.Join(t.TempDir(), "none.onnx")})
		if fault.From(err) == nil || fault.From(err).Code != fault.ModelInvalid {
			t.Errorf("got %v", err)
		}
	})

	t.Run("LoadHeedsItsContext", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()

		if _, err := e.Load(ctx, engine.LoadSpec{Path: echo}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})

	s, err := e.Load(t.Context(), engine.LoadSpec{Path: echo})
	if err != nil {
		t.Fatal(err)
	}

	t.Run("Info", func(t *testing.T) { suiteInfo(t, e, s) })
	t.Run("RunGivesOwnMemory", func(t *testing.T) { suiteRun(t, s) })
	t.Run("RunRefusesBadInputs", func(t *testing.T) { suiteBad(t, s) })
	t.Run("RunHeedsItsContext", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()

		if _, _, err := s.Run(ctx, []engine.Tensor{pair(1, 2)}, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("RunsSideBySide", func(t *testing.T) { suiteParallel(t, s) })
	t.Run("Close", func(t *testing.T) {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func pair(a, b float32) engine.Tensor {
	data := binary.LittleEndian.AppendUint32(nil, math.Float32bits(a))
	data = binary.LittleEndian.AppendUint32(data, math.Float32bits(b))

	return engine.Tensor{Name: "x", Type: engine.FP32, Shape: []int64{1, 2}, Data: data}
}

func suiteInfo(t *testing.T, e engine.Engine, s engine.Session) {
	t.Helper()

	if e.Name() == "" || s.Provider() == "" {
		t.Errorf("engine %q, provider %q", e.Name(), s.Provider())
	}

	for _, infos := range [][]engine.Info{s.Inputs(), s.Outputs()} {
		if len(infos) != 1 || infos[0].Type != engine.FP32 || !slices.Equal(infos[0].Shape, []int64{-1, 2}) {
			t.Errorf("info %+v", infos)
		}
	}

	if s.Inputs()[0].Name != "x" || s.Outputs()[0].Name != "y" {
		t.Errorf("names %q and %q", s.Inputs()[0].Name, s.Outputs()[0].Name)
	}
}

func suiteRun(t *testing.T, s engine.Session) {
	t.Helper()

	in := pair(3, 4)
	want := bytes.Clone(in.Data)

	for _, names := range [][]string{nil, {"y"}} {
		out, release, err := s.Run(t.Context(), []engine.Tensor{in}, names)
		if err != nil {
			t.Fatal(err)
		}

		clear(in.Data) // the caller may use its memory again at once

		if len(out) != 1 || out[0].Name != "y" || !slices.Equal(out[0].Shape, []int64{1, 2}) || !bytes.Equal(out[0].Data, want) {
			t.Errorf("got %+v", out)
		}

		release()
		release()
		copy(in.Data, want)
	}

	empty := engine.Tensor{Name: "x", Type: engine.FP32, Shape: []int64{0, 2}}

	out, release, err := s.Run(t.Context(), []engine.Tensor{empty}, nil)
	if err != nil || !slices.Equal(out[0].Shape, []int64{0, 2}) || len(out[0].Data) != 0 {
		t.Fatalf("no rows: %+v, %v", out, err)
	}

	release()
}

func suiteBad(t *testing.T, s engine.Session) {
	t.Helper()

	wrong := pair(1, 2)
	wrong.Type = engine.Int32

	for name, tc := range map[string]struct {
		in    []engine.Tensor
		names []string
	}{
		"none":   {nil, nil},
		"two":    {[]engine.Tensor{pair(1, 2), pair(1, 2)}, nil},
		"type":   {[]engine.Tensor{wrong}, nil},
		"output": {[]engine.Tensor{pair(1, 2)}, []string{"z"}},
	} {
		if _, _, err := s.Run(t.Context(), tc.in, tc.names); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func suiteParallel(t *testing.T, s engine.Session) {
	t.Helper()

	var wg sync.WaitGroup

	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				in := pair(float32(i), 1)

				out, release, err := s.Run(t.Context(), []engine.Tensor{in}, nil)
				if err != nil || !bytes.Equal(out[0].Data, in.Data) {
					t.Errorf("run %d: %v", i, err)

					return
				}

				release()
			}
		})
	}

	wg.Wait()
}
