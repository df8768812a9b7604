package ort_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/ortlib"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

func newEngine(tb testing.TB) *ort.Engine {
	tb.Helper()

	return newEngineLog(tb, slog.New(slog.DiscardHandler))
}

func newEngineLog(tb testing.TB, log *slog.Logger) *ort.Engine {
	tb.Helper()

	library, err := ortlib.Find()
	if err != nil {
		tb.Fatal(err)
	}

	e, err := ort.New(ort.Config{Library: library}, log)
	if err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(func() { _ = e.Close() })

	return e
}

func write(tb testing.TB, m *onnxgen.Model) string {
	tb.Helper()

	path := filepath.Join(tb.TempDir(), "model.onnx")
	if err := m.WriteFile(path); err != nil {
		tb.Fatal(err)
	}

	return path
}

func writeFile(tb testing.TB, path, data string) {
	tb.Helper()

	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func load(tb testing.TB, m *onnxgen.Model) engine.Session {
	tb.Helper()

	s, err := newEngine(tb).Load(tb.Context(), engine.LoadSpec{Path: write(tb, m)})
	if err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})

	return s
}

func floats(vs ...float32) []byte {
	var b []byte
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}

	return b
}

func texts(vs ...string) []byte {
	var b []byte
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
		b = append(b, v...)
	}

	return b
}

var elems = []struct {
	onnx onnxgen.Type
	dt   engine.DataType
}{
	{onnxgen.Bool, engine.Bool},
	{onnxgen.Uint8, engine.Uint8},
	{onnxgen.Uint16, engine.Uint16},
	{onnxgen.Uint32, engine.Uint32},
	{onnxgen.Uint64, engine.Uint64},
	{onnxgen.Int8, engine.Int8},
	{onnxgen.Int16, engine.Int16},
	{onnxgen.Int32, engine.Int32},
	{onnxgen.Int64, engine.Int64},
	{onnxgen.Float16, engine.FP16},
	{onnxgen.Float, engine.FP32},
	{onnxgen.Double, engine.FP64},
	{onnxgen.BFloat16, engine.BF16},
	{onnxgen.String, engine.Bytes},
}

func TestEveryTypePassesUnchanged(t *testing.T) {
	t.Parallel()

	for _, el := range elems {
		t.Run(el.dt.String(), func(t *testing.T) {
			t.Parallel()

			s := load(t, onnxgen.Identity(el.onnx, onnxgen.Shape(-1, -1)))

			for _, shape := range [][]int64{{1, 1}, {2, 3}, {0, 3}, {4, 0}, {1, 1000}} {
				n := engine.Elements(shape)
				data := make([]byte, int(n)*el.dt.Size())

				for i := range data {
					data[i] = byte(i * 7)
				}

				if el.dt == engine.Bool {
					for i := range data {
						data[i] &= 1
					}
				}

				if el.dt == engine.Bytes {
					words := make([]string, n)
					for i := range words {
						words[i] = strings.Repeat("é\x00", i%5)
					}

					data = texts(words...)
				}

				in := engine.Tensor{Name: "x", Type: el.dt, Shape: shape, Data: data}

				out, release, err := s.Run(t.Context(), []engine.Tensor{in}, nil)
				if err != nil {
					t.Fatalf("shape %v: %v", shape, err)
				}

				if out[0].Name != "y" || out[0].Type != el.dt || !slices.Equal(out[0].Shape, shape) ||
					string(out[0].Data) != string(data) {
					t.Errorf("shape %v: got %q %v %v, %d bytes", shape, out[0].Name, out[0].Type, out[0].Shape, len(out[0].Data))
				}

				release()
			}
		})
	}
}

func TestScalar(t *testing.T) {
	t.Parallel()

	s := load(t, onnxgen.Binary("Add", onnxgen.Float, onnxgen.Shape()))
	if len(s.Inputs()[0].Shape) != 0 || len(s.Inputs()) != 2 {
		t.Fatalf("inputs %+v", s.Inputs())
	}

	out, release, err := s.Run(t.Context(), []engine.Tensor{
		{Type: engine.FP32, Data: floats(1.5)}, {Type: engine.FP32, Data: floats(2)},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()

	if len(out[0].Shape) != 0 || string(out[0].Data) != string(floats(3.5)) {
		t.Errorf("got %+v", out[0])
	}
}

func TestInfoTellsDynamicDimensionsAndNames(t *testing.T) {
	t.Parallel()

	dims := []onnxgen.Dim{{Name: "batch"}, {Size: -1}, {Size: 3}}
	s := load(t, onnxgen.Identity(onnxgen.Float, dims))

	in := s.Inputs()[0]
	if in.Name != "x" || in.Type != engine.FP32 || !slices.Equal(in.Shape, []int64{-1, -1, 3}) ||
		!slices.Equal(in.Names, []string{"batch", "", ""}) {
		t.Errorf("got %+v", in)
	}

	if s.Provider() != "cpu" {
		t.Errorf("provider %q", s.Provider())
	}
}

func TestSeveralInputsAndChosenOutputs(t *testing.T) {
	t.Parallel()

	dims := onnxgen.Batch(2)
	m := new(onnxgen.Model).
		Input("a", onnxgen.Float, dims).Input("n", onnxgen.Int64, dims).
		Output("sum", onnxgen.Float, dims).Output("twice", onnxgen.Int64, dims).Output("neg", onnxgen.Float, dims).
		Node("Add", []string{"a", "a"}, []string{"sum"}).
		Node("Add", []string{"n", "n"}, []string{"twice"}).
		Node("Neg", []string{"a"}, []string{"neg"})
	s := load(t, m)
	in := []engine.Tensor{
		{Type: engine.FP32, Shape: []int64{1, 2}, Data: floats(1, 2)},
		{Type: engine.Int64, Shape: []int64{1, 2}, Data: []byte{5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0}},
	}

	for _, tc := range []struct{ want, names []string }{
		{nil, []string{"sum", "twice", "neg"}},
		{[]string{"neg"}, []string{"neg"}},
		{[]string{"neg", "sum"}, []string{"neg", "sum"}},
	} {
		out, release, err := s.Run(t.Context(), in, tc.want)
		if err != nil {
			t.Fatal(err)
		}

		var names []string
		for _, o := range out {
			names = append(names, o.Name)
		}

		if !slices.Equal(names, tc.names) {
			t.Errorf("wanted %v, got %v", tc.want, names)
		}

		if last := out[len(out)-1]; last.Name == "neg" && string(last.Data) != string(floats(-1, -2)) {
			t.Errorf("neg is %v", last.Data)
		}

		release()
		release() // again is harmless
	}

	if _, _, err := s.Run(t.Context(), in, []string{"nope"}); fault.From(err).Code != fault.BadTensor {
		t.Errorf("unknown output: %v", err)
	}
}

func TestBadInputsAreTheCallersFault(t *testing.T) {
	t.Parallel()

	s := load(t, onnxgen.Identity(onnxgen.Float, onnxgen.Batch(2)))
	str := load(t, onnxgen.Identity(onnxgen.String, onnxgen.Shape(-1)))

	for name, tc := range map[string]struct {
		s  engine.Session
		in []engine.Tensor
	}{
		"none":         {s, nil},
		"type":         {s, []engine.Tensor{{Type: engine.Int32, Shape: []int64{1, 2}, Data: make([]byte, 8)}}},
		"short":        {s, []engine.Tensor{{Type: engine.FP32, Shape: []int64{1, 2}, Data: make([]byte, 7)}}},
		"long":         {s, []engine.Tensor{{Type: engine.FP32, Shape: []int64{1, 2}, Data: make([]byte, 12)}}},
		"negative":     {s, []engine.Tensor{{Type: engine.FP32, Shape: []int64{-1, 2}, Data: make([]byte, 8)}}},
		"overflow":     {s, []engine.Tensor{{Type: engine.FP32, Shape: []int64{1 << 62, 4}, Data: nil}}},
		"rank":         {s, []engine.Tensor{{Type: engine.FP32, Shape: []int64{2}, Data: make([]byte, 8)}}},
		"ranks":        {s, []engine.Tensor{{Type: engine.FP32, Shape: make([]int64, 40)}}},
		"dimension":    {s, []engine.Tensor{{Type: engine.FP32, Shape: []int64{1, 3}, Data: make([]byte, 12)}}},
		"text cut":     {str, []engine.Tensor{{Type: engine.Bytes, Shape: []int64{1}, Data: []byte{9, 0, 0, 0, 'x'}}}},
		"text huge":    {str, []engine.Tensor{{Type: engine.Bytes, Shape: []int64{1}, Data: []byte{255, 255, 255, 255}}}},
		"text more":    {str, []engine.Tensor{{Type: engine.Bytes, Shape: []int64{1}, Data: texts("a", "b")}}},
		"text missing": {str, []engine.Tensor{{Type: engine.Bytes, Shape: []int64{2}, Data: texts("a")}}},
	} {
		_, _, err := tc.s.Run(t.Context(), tc.in, nil)
		if err == nil || fault.From(err).Code != fault.BadTensor {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestMisalignedInputIsRead(t *testing.T) {
	t.Parallel()

	s := load(t, onnxgen.Unary("Neg", onnxgen.Float, onnxgen.Shape(-1)))
	buf := append([]byte{0xff}, floats(1, 2, 3)...)

	out, release, err := s.Run(t.Context(), []engine.Tensor{{Type: engine.FP32, Shape: []int64{3}, Data: buf[1:]}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()

	if string(out[0].Data) != string(floats(-1, -2, -3)) {
		t.Errorf("got %v", out[0].Data)
	}
}

// Inputs that Go frees after a run must not be reachable from C memory when the next run
// overwrites it, or a garbage collection at that moment ends the process.
func TestInputsMayBeCollectedBetweenRuns(t *testing.T) {
	t.Parallel()

	for _, el := range elems {
		if el.dt != engine.FP32 && el.dt != engine.FP16 { // one for the binding, one for the shim
			continue
		}

		t.Run(el.dt.String(), func(t *testing.T) {
			t.Parallel()
			collectBetweenRuns(t, load(t, onnxgen.Identity(el.onnx, onnxgen.Shape(-1))))
		})
	}
}

func collectBetweenRuns(t *testing.T, s engine.Session) {
	t.Helper()

	dt := s.Inputs()[0].Type

	for round := range 100 {
		releases := make([]func(), 0, 32)

		for i := range 32 { // as many blocks of C memory as a session keeps
			data := bytes.Repeat([]byte{byte(round), byte(i)}, 128)
			in := []engine.Tensor{{Type: dt, Shape: []int64{int64(len(data) / dt.Size())}, Data: data}}

			out, release, err := s.Run(t.Context(), in, nil)
			if err != nil {
				t.Fatal(err)
			}

			if !bytes.Equal(out[0].Data, data) {
				t.Fatalf("round %d, run %d: other data came back", round, i)
			}

			releases = append(releases, release)

			if len(releases)%8 == 1 {
				go runtime.GC() // collects while the runs below reuse blocks of the round before
			}
		}

		for _, release := range releases {
			release()
		}

		runtime.GC()
	}
}

func TestRunTimeFailureNamesTheReason(t *testing.T) {
	t.Parallel()

	m := new(onnxgen.Model).Input("i", onnxgen.Int64, onnxgen.Shape(-1)).Output("y", onnxgen.Float, onnxgen.Shape(-1)).
		Floats("table", []int64{3}, []float32{1, 2, 3}).Node("Gather", []string{"table", "i"}, []string{"y"})
	s := load(t, m)

	_, _, err := s.Run(t.Context(), []engine.Tensor{{Type: engine.Int64, Shape: []int64{1}, Data: []byte{9, 0, 0, 0, 0, 0, 0, 0}}}, nil)

	f := fault.From(err)
	if f == nil || f.Code != fault.BadTensor || !strings.Contains(f.Message(), "indices element out of data bounds") {
		t.Errorf("got %v", err)
	}
}

func TestBrokenModels(t *testing.T) {
	t.Parallel()

	e := newEngine(t)
	good := onnxgen.MLP(1, 8, 8, 2).Bytes()
	dims := onnxgen.Batch(2)

	for name, tc := range map[string]struct {
		data []byte
		text string
	}{
		"empty":     {nil, "model.onnx"},
		"garbage":   {[]byte("this is not a model"), "Protobuf"},
		"truncated": {good[:len(good)/2], "model.onnx"},
		"operator":  {onnxgen.Unary("Nonsense", onnxgen.Float, dims).Bytes(), "Nonsense"},
		"type": {new(onnxgen.Model).Input("x", onnxgen.Float, dims).Output("y", onnxgen.Int64, dims).
			Node("Identity", []string{"x"}, []string{"y"}).Bytes(), "model.onnx"},
		"dangling": {new(onnxgen.Model).Output("y", onnxgen.Float, dims).
			Node("Identity", []string{"x"}, []string{"y"}).Bytes(), "model.onnx"},
		"opset": {func() []byte { m := onnxgen.Identity(onnxgen.Float, dims); m.Opset = 9999; return m.Bytes() }(), "9999"},
		"sequence input": {new(onnxgen.Model).SequenceInput("s", onnxgen.Float).Output("y", onnxgen.Int64, onnxgen.Shape()).
			Node("SequenceLength", []string{"s"}, []string{"y"}).Bytes(), `input "s" is a sequence`},
		"only a sequence output": {new(onnxgen.Model).Input("x", onnxgen.Float, dims).SequenceOutput("s", onnxgen.Float).
			Node("SequenceConstruct", []string{"x"}, []string{"s"}).Bytes(), "no output that can be sent: s (sequence)"},
		"complex input": {new(onnxgen.Model).Input("x", onnxgen.Complex, dims).Output("y", onnxgen.Complex, dims).
			Node("Identity", []string{"x"}, []string{"y"}).Bytes(), "model"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			path := filepath.Join(dir, "model.onnx")
			if err := os.WriteFile(path, tc.data, 0o600); err != nil {
				t.Fatal(err)
			}

			_, err := e.Load(t.Context(), engine.LoadSpec{Path: path})

			f := fault.From(err)
			if f == nil || f.Code != fault.ModelInvalid || !strings.Contains(f.Message(), tc.text) {
				t.Fatalf("got %v", err)
			}

			if strings.Contains(f.Message(), dir) {
				t.Errorf("the text shows a path of the server: %s", f.Message())
			}
		})
	}

	_, err := e.Load(t.Context(), engine.LoadSpec{Path: filepath.Join(t.TempDir(), "none.onnx")})
	if fault.From(err).Code != fault.ModelInvalid {
		t.Errorf("missing file: %v", err)
	}
}

func TestSequenceOutputIsLeftOut(t *testing.T) {
	t.Parallel()

	dims := onnxgen.Batch(2)
	s := load(t, new(onnxgen.Model).Input("x", onnxgen.Float, dims).
		SequenceOutput("s", onnxgen.Float).Output("y", onnxgen.Float, dims).
		Node("SequenceConstruct", []string{"x"}, []string{"s"}).Node("Neg", []string{"x"}, []string{"y"}))

	if len(s.Outputs()) != 1 || s.Outputs()[0].Name != "y" {
		t.Fatalf("outputs %+v", s.Outputs())
	}

	out, release, err := s.Run(t.Context(), []engine.Tensor{{Type: engine.FP32, Shape: []int64{1, 2}, Data: floats(1, 2)}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()

	if len(out) != 1 || string(out[0].Data) != string(floats(-1, -2)) {
		t.Errorf("got %+v", out)
	}
}

func TestCancelTerminatesTheRun(t *testing.T) {
	t.Parallel()

	s := load(t, onnxgen.Work(1, 256, 3000))
	rows := int64(64)
	in := []engine.Tensor{{Type: engine.FP32, Shape: []int64{rows, 256}, Data: make([]byte, rows*256*4)}}

	start := time.Now()

	_, release, err := s.Run(t.Context(), in, nil)
	if err != nil {
		t.Fatal(err)
	}

	whole := time.Since(start)

	release()

	ctx, cancel := context.WithTimeout(t.Context(), whole/10)
	defer cancel()

	start = time.Now()
	if _, _, err = s.Run(ctx, in, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}

	if took := time.Since(start); took > whole*2/3 {
		t.Errorf("terminated after %v of %v", took, whole)
	}

	_, release, err = s.Run(t.Context(), in, nil)
	if err != nil {
		t.Fatalf("the run after a terminated one: %v", err)
	}

	release()
}

func TestClosedSessionRefuses(t *testing.T) {
	t.Parallel()

	s := load(t, onnxgen.Identity(onnxgen.Float, onnxgen.Shape(-1)))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	if _, _, err := s.Run(t.Context(), []engine.Tensor{{Type: engine.FP32, Shape: []int64{0}}}, nil); err == nil {
		t.Error("a closed session ran")
	}
}

func TestNewWithoutALibrary(t *testing.T) {
	t.Parallel()

	for _, path := range []string{"/does/not/exist.so", "/proc/self/exe"} {
		if _, err := ort.New(ort.Config{Library: path}, slog.New(slog.DiscardHandler)); err == nil ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
