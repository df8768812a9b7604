package conformance_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

// asked is how many models must have been compared with the oracle in a whole run.
const asked = 900

// TestOracle asks onnxruntime-node the same as a worker, with random floats in the place of those that
// come with the models. It needs SLUICE_ORACLE, the directory where "make conformance" has npm install
// what oracle/package.json names.
func TestOracle(t *testing.T) {
	t.Parallel()

	dir := os.Getenv("SLUICE_ORACLE")
	if dir == "" {
		t.Skip("SLUICE_ORACLE names no directory with onnxruntime-node; make conformance does, where there is npm")
	}

	root := cmp.Or(os.Getenv("SLUICE_ONNX_TESTDATA"), "/usr/share/libonnx-testdata/data")

	dirs, err := filepath.Glob(filepath.Join(root, "*", "*", "model.onnx"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no models in %s: install libonnx-testdata, or set SLUICE_ONNX_TESTDATA", root)
	}

	w, o, skips := start(t), startOracle(t, dir), readSkips(t)
	count := map[string]int{}

	for i, path := range dirs {
		name := modelName(path)

		verdict, detail := w.consult(t.Context(), o, name, path, skips[name], uint64(i))
		count[verdict]++

		if verdict == "failed" {
			t.Errorf("%s: %s", name, detail)
		}
	}

	summary := fmt.Sprintf("oracle onnxruntime-node: %d agree, %d agree that the input is bad, %d differ, %d skipped",
		count["agrees"], count["refused"], count["failed"], count["skipped"])
	t.Log(summary)

	_, _ = fmt.Fprintln(os.Stdout, summary)

	if count["agrees"] < asked && os.Getenv("SLUICE_ONNX_TESTDATA") == "" {
		t.Errorf("only %d models were compared, want %d", count["agrees"], asked)
	}
}

// consult compares one model.
func (w *worker) consult(ctx context.Context, o *oracle, name, path string, skip entry, seed uint64) (verdict, detail string) { //nolint:revive // what makes one comparison
	if skip.kind != "" && skip.kind != differs { // the oracle is ONNX Runtime, too
		return "skipped", skip.reason
	}

	if err := w.repo.Add(ctx, repo.Source{Name: name, Version: "1", Dir: path}); err != nil {
		return "failed", fmt.Sprintf("loading: %v", err)
	}

	defer func() {
		if err := w.repo.Unload(context.WithoutCancel(ctx), name, ""); err != nil {
			verdict, detail = "failed", fmt.Sprintf("unloading: %v", err)
		}
	}()

	inputs, outputs, err := w.metadata(ctx, name)
	if err != nil {
		return "failed", err.Error()
	}

	in, err := readTensors(filepath.Dir(path), "input", inputs)
	if err != nil {
		return "failed", err.Error()
	}

	if slices.ContainsFunc(outputs, func(i info) bool { return i.Datatype == "BF16" }) {
		return "skipped", "JavaScript has no such values"
	}

	rng := rand.New(rand.NewPCG(seed, 7))

	for i := range in {
		scramble(rng, &in[i])

		if in[i].Type == engine.BF16 || in[i].Type == engine.Bytes && !utf8.Valid(texts(in[i].Data)) {
			return "skipped", "JavaScript has no such values"
		}
	}

	want, err := o.run(path, in)
	if err != nil {
		return "failed", err.Error()
	}

	got, err := w.viaBinary(ctx, name, in)

	switch {
	case err != nil && want.Error != "":
		return "refused", ""
	case err != nil:
		return "failed", fmt.Sprintf("the worker refuses what the oracle takes: %v", err)
	case want.Error != "":
		return "failed", "the worker takes what the oracle refuses: " + want.Error
	}

	return matches(got, want.Outputs)
}

// matches compares the worker's outputs with those of the oracle of the same names.
func matches(got []engine.Tensor, want []foreign) (verdict, detail string) {
	byName := map[string]foreign{}
	for _, t := range want {
		byName[t.Name] = t
	}

	for i := range got {
		t, ok := byName[got[i].Name]
		if !ok {
			return "failed", fmt.Sprintf("the oracle has no output %q", got[i].Name)
		}

		other, err := t.tensor()
		if err != nil {
			return "failed", fmt.Sprintf("output %q of the oracle: %v", t.Name, err)
		}

		if why := compare(&got[i], &other); why != "" {
			return "failed", fmt.Sprintf("output %q: %s", t.Name, why)
		}
	}

	return "agrees", ""
}

// scramble replaces floats by others of about their size. Whole numbers may be indices or axes, and stay.
func scramble(rng *rand.Rand, t *engine.Tensor) {
	le := binary.LittleEndian

	for i := 0; i+t.Type.Size() <= len(t.Data); i += max(1, t.Type.Size()) {
		switch t.Type { //nolint:exhaustive // see above
		case engine.FP32:
			le.PutUint32(t.Data[i:], math.Float32bits(float32(rng.NormFloat64())))
		case engine.FP64:
			le.PutUint64(t.Data[i:], math.Float64bits(rng.NormFloat64()))
		case engine.FP16: // from 0.5 to 1, of either sign
			le.PutUint16(t.Data[i:], uint16(rng.Uint32())&0x83ff|0x3800)
		default:
			return
		}
	}
}

// foreign is a tensor as the oracle writes it.
type foreign struct {
	Name     string          `json:"name"`
	Datatype string          `json:"datatype"`
	Shape    []int64         `json:"shape"`
	Data     json.RawMessage `json:"data"`
}

func (f *foreign) tensor() (engine.Tensor, error) {
	t := engine.Tensor{Name: f.Name, Type: engine.ParseDataType(f.Datatype), Shape: f.Shape}

	if t.Type != engine.Bytes {
		return t, json.Unmarshal(f.Data, &t.Data)
	}

	var list [][]byte
	if err := json.Unmarshal(f.Data, &list); err != nil {
		return t, err
	}

	for _, s := range list {
		t.Data = append(binary.LittleEndian.AppendUint32(t.Data, uint32(len(s))), s...)
	}

	return t, nil
}

func toForeign(t *engine.Tensor) foreign {
	f := foreign{Name: t.Name, Datatype: t.Type.String(), Shape: t.Shape}
	data := any(base64.StdEncoding.EncodeToString(t.Data))

	if t.Type == engine.Bytes {
		list := [][]byte{}

		for b := t.Data; len(b) >= 4; {
			n := binary.LittleEndian.Uint32(b)
			list = append(list, b[4:4+n])
			b = b[4+n:]
		}

		data = list
	}

	f.Data, _ = json.Marshal(data) //nolint:errchkjson // texts and bytes always can

	return f
}

// oracle is onnxruntime-node in a process of its own.
type oracle struct {
	in  io.Writer
	out *bufio.Reader
}

type oracleAnswer struct {
	Outputs []foreign `json:"outputs"`
	Error   string    `json:"error"`
}

func startOracle(t *testing.T, dir string) *oracle {
	t.Helper()

	script, err := os.ReadFile("oracle/oracle.mjs")
	if err != nil {
		t.Fatal(err)
	}

	// Node looks for packages beside the script.
	path := filepath.Join(dir, "oracle.mjs")
	if err := os.WriteFile(path, script, 0o600); err != nil {
		t.Fatal(err)
	}

	cmd := exec.CommandContext(t.Context(), "node", path)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "ORT_DISABLE_TELEMETRY=1")

	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}

	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // the context of the test has ended it
	})

	return &oracle{in: in, out: bufio.NewReader(out)}
}

func (o *oracle) run(model string, in []engine.Tensor) (*oracleAnswer, error) {
	req := struct {
		Model  string    `json:"model"`
		Inputs []foreign `json:"inputs"`
	}{Model: model, Inputs: []foreign{}}

	for i := range in {
		req.Inputs = append(req.Inputs, toForeign(&in[i]))
	}

	line, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}

	if _, err := o.in.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("ask the oracle: %w", err)
	}

	line, err = o.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("hear the oracle: %w", err)
	}

	a := &oracleAnswer{}

	return a, json.Unmarshal(line, a)
}
