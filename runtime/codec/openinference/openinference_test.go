package openinference_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec/openinference"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

func info(name string, t engine.DataType, shape ...int64) engine.Info {
	return engine.Info{Name: name, Type: t, Shape: shape}
}

func model(batchable bool, in, out []engine.Info) *openinference.Model {
	return &openinference.Model{Meta: &repo.Meta{
		Name: "m", Version: "2", Inputs: in, Outputs: out, Batchable: batchable, MaxBatchSize: 4, Labels: []string{"zero", "one"},
	}}
}

func pair() *openinference.Model {
	return model(true,
		[]engine.Info{info("A", engine.FP32, -1, 2), info("B", engine.Int32, -1, 1)},
		[]engine.Info{info("X", engine.FP32, -1, 3), info("Y", engine.Bytes, -1)})
}

func fp32(v ...float32) []byte {
	var b []byte
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}

	return b
}

func str(v ...string) []byte {
	var b []byte
	for _, s := range v {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
	}

	return b
}

const (
	inputA = `{"name":"A","datatype":"FP32","shape":[2,2],"data":[[1,2],[3,4]]}`
	inputB = `{"name":"B","datatype":"INT32","shape":[2,1],"data":[7,8]}`
)

func TestDecodeOrdersInputsAndReadsParameters(t *testing.T) {
	t.Parallel()

	var r openinference.Request

	body := `{"model_name":"ignored","id":"x","parameters":{"priority":2,"timeout":1500,"binary_data_output":true,"sequence_id":7,"own":"s"},
		"outputs":[{"name":"Y"},{"name":"X","parameters":{"binary_data":true,"classification":2}}],
		"inputs":[` + inputB + `,` + inputA + `]}`
	if err := r.Decode(pair(), []byte(body), -1); err != nil {
		t.Fatal(err)
	}

	if string(r.ID) != "x" || r.Rows != 2 || r.Priority != 2 || r.Timeout != 1500*time.Microsecond || !r.BinaryOutput ||
		!slices.Equal(r.Names, []string{"Y", "X"}) || r.Outputs[1] != (openinference.Output{Index: 0, Binary: true, Classes: 2}) {
		t.Errorf("%+v", r)
	}

	if a := r.Inputs[0]; a.Name != "A" || !slices.Equal(a.Data, fp32(1, 2, 3, 4)) || !slices.Equal(a.Shape, []int64{2, 2}) {
		t.Errorf("A: %+v", a)
	}

	if b := r.Inputs[1]; b.Name != "B" || len(b.Data) != 8 || b.Data[0] != 7 {
		t.Errorf("B: %+v", b)
	}
}

func TestDecodeBinaryAliasesTheBody(t *testing.T) {
	t.Parallel()

	head := `{"inputs":[{"name":"B","datatype":"INT32","shape":[1,1],"data":[9]},` +
		`{"name":"A","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}`
	body := append([]byte(head), fp32(1, 2)...)

	var r openinference.Request

	if err := r.Decode(pair(), body, len(head)); err != nil {
		t.Fatal(err)
	}

	if &r.Inputs[0].Data[0] != &body[len(head)] {
		t.Error("the tensor does not alias the body")
	}
}

func TestDecodeRaw(t *testing.T) {
	t.Parallel()

	var r openinference.Request

	m := model(true, []engine.Info{info("x", engine.FP32, -1, -1, 2)}, nil)
	if err := r.Decode(m, fp32(1, 2, 3, 4), 0); err != nil || !slices.Equal(r.Inputs[0].Shape, []int64{1, 2, 2}) || !r.BinaryOutput {
		t.Errorf("%v %+v", err, r.Inputs)
	}

	if err := r.Decode(m, make([]byte, 9), 0); err == nil {
		t.Error("9 bytes fit no shape")
	}

	m = model(false, []engine.Info{info("s", engine.Bytes, -1)}, nil)
	if err := r.Decode(m, []byte("hello"), 0); err != nil || string(r.Inputs[0].Data) != string(str("hello")) || !slices.Equal(r.Inputs[0].Shape, []int64{1}) {
		t.Errorf("%v %+v", err, r.Inputs)
	}

	if err := r.Decode(pair(), nil, 0); err == nil || !strings.Contains(err.Error(), "Raw request must only have 1 input") {
		t.Errorf("two inputs: %v", err)
	}

	m = model(false, []engine.Info{info("x", engine.FP32, -1, -1)}, nil)
	if err := r.Decode(m, fp32(1), 0); err == nil || !strings.Contains(err.Error(), "can not be deduced") {
		t.Errorf("two free dimensions: %v", err)
	}
}

func TestDecodeRefusesWithTheInputsName(t *testing.T) {
	t.Parallel()

	in := func(a string) string { return `{"inputs":[` + a + `,` + inputB + `]}` }

	for name, c := range map[string]struct {
		body   string
		header int
		part   string
	}{
		"syntax":          {`{"inputs":[{`, -1, "failed to parse the request JSON buffer"},
		"empty object":    {`{}`, -1, "'inputs'"},
		"not an object":   {`[]`, -1, "failed to parse the request JSON buffer"},
		"tail":            {in(inputA) + "x", -1, "failed to parse"},
		"no inputs":       {`{"inputs":[]}`, -1, "expected 2 inputs but got 0 inputs for model 'm'"},
		"missing input":   {`{"inputs":[` + inputA + `]}`, -1, "missing required input(s) ['B']"},
		"inputs object":   {`{"inputs":{}}`, -1, "must be an array"},
		"input number":    {`{"inputs":[3]}`, -1, "element 0 must be an object"},
		"unknown input":   {in(`{"name":"Q","datatype":"FP32","shape":[2,2],"data":[1,2,3,4]}`), -1, "unexpected inference input 'Q' for model 'm'"},
		"twice":           {`{"inputs":[` + inputA + `,` + inputA + `]}`, -1, "input 'A' already exists"},
		"inputs twice":    {`{"inputs":[` + inputA + `],"inputs":[` + inputB + `]}`, -1, "'inputs' is given twice"},
		"type":            {in(`{"name":"A","datatype":"INT64","shape":[2,2],"data":[1,2,3,4]}`), -1, "inference input 'A' data-type is 'INT64', but model 'm' expects 'FP32'"},
		"unknown type":    {in(`{"name":"A","datatype":"FLOAT","shape":[2,2],"data":[1,2,3,4]}`), -1, "invalid datatype 'FLOAT' for input 'A'"},
		"no type":         {in(`{"name":"A","shape":[2,2],"data":[1,2,3,4]}`), -1, "'datatype' of input 'A'"},
		"no shape":        {in(`{"name":"A","datatype":"FP32","data":[1,2,3,4]}`), -1, "'shape' of input 'A'"},
		"no name":         {in(`{"datatype":"FP32","shape":[2,2],"data":[1,2,3,4]}`), -1, "'name' of input 0"},
		"shape":           {in(`{"name":"A","datatype":"FP32","shape":[2,3],"data":[1,2,3,4,5,6]}`), -1, "unexpected shape for input 'A' for model 'm'. Expected [-1,2], got [2,3]."},
		"rank":            {in(`{"name":"A","datatype":"FP32","shape":[4],"data":[1,2,3,4]}`), -1, "unexpected shape for input 'A'"},
		"negative shape":  {in(`{"name":"A","datatype":"FP32","shape":[-2,2],"data":[]}`), -1, "'shape' of input 'A'"},
		"huge shape":      {in(`{"name":"A","datatype":"FP32","shape":[9000000000000000000,2],"data":[]}`), -1, "input 'A' is too large"},
		"huge rank":       {in(`{"name":"A","datatype":"FP32","shape":[` + strings.Repeat("1,", 99) + `1],"data":[1]}`), -1, "'shape' of input 'A'"},
		"lying shape":     {in(`{"name":"A","datatype":"FP32","shape":[1000000000,2],"data":[1,2]}`), -1, "shape does not match true shape"},
		"few":             {in(`{"name":"A","datatype":"FP32","shape":[2,2],"data":[1,2,3]}`), -1, "shape does not match true shape"},
		"many":            {in(`{"name":"A","datatype":"FP32","shape":[2,2],"data":[1,2,3,4,5]}`), -1, "Shape does not match true shape"},
		"data first few":  {in(`{"data":[1,2,3],"name":"A","datatype":"FP32","shape":[2,2]}`), -1, "shape does not match true shape"},
		"string":          {in(`{"name":"A","datatype":"FP32","shape":[2,2],"data":["1",2,3,4]}`), -1, "element 0 of input 'A'"},
		"data object":     {in(`{"name":"A","datatype":"FP32","shape":[2,2],"data":{}}`), -1, "input 'A'"},
		"no data":         {in(`{"name":"A","datatype":"FP32","shape":[2,2]}`), -1, "But no field is set"},
		"both":            {in(`{"name":"A","datatype":"FP32","shape":[2,2],"data":[1,2,3,4],"parameters":{"binary_data_size":16}}`), -1, "But set 'data' 'binary_data_size'"},
		"binary no head":  {in(`{"name":"A","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":16}}`), -1, "Inference-Header-Content-Length"},
		"binary short":    {in(`{"name":"A","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":16}}`) + "0123456789", -2, "unexpected size for input 'A', expecting 6 additional bytes for model 'm'"},
		"binary long":     {in(`{"name":"A","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":16}}`) + strings.Repeat("0", 17), -2, "unexpected additional input data for model 'm'"},
		"binary size":     {in(`{"name":"A","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":12}}`) + strings.Repeat("0", 12), -2, "unexpected total byte size 12 for input 'A', expecting 16"},
		"binary negative": {in(`{"name":"A","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":-1}}`), -1, "'binary_data_size'"},
		"shared memory":   {in(`{"name":"A","datatype":"FP32","shape":[2,2],"parameters":{"shared_memory_region":"r"}}`), -1, "shared memory"},
		"batch":           {`{"inputs":[{"name":"A","datatype":"FP32","shape":[5,2],"data":[1,2,3,4,5,6,7,8,9,10]},{"name":"B","datatype":"INT32","shape":[5,1],"data":[1,2,3,4,5]}]}`, -1, "inference request batch-size must be <= 4 for 'm'"},
		"batch differs":   {`{"inputs":[{"name":"A","datatype":"FP32","shape":[1,2],"data":[1,2]},` + inputB + `]}`, -1, "input 'B' batch size does not match other inputs for 'm'"},
		"batch 0":         {`{"inputs":[{"name":"A","datatype":"FP32","shape":[0,2],"data":[]},{"name":"B","datatype":"INT32","shape":[0,1]}]}`, -1, "batch-size must be >= 1"},
		"output":          {`{"outputs":[{"name":"Z"}],` + in(inputA)[1:], -1, "unexpected inference output 'Z' for model 'm'"},
		"output twice":    {`{"outputs":[{"name":"X"},{"name":"X"}],` + in(inputA)[1:], -1, "output 'X' already exists in request"},
		"output nameless": {`{"outputs":[{}],` + in(inputA)[1:], -1, "'name' of output 0"},
		"output param":    {`{"outputs":[{"name":"X","parameters":{"binary_data":"yes"}}],` + in(inputA)[1:], -1, "'binary_data' must be true or false"},
		"id":              {`{"id":5,` + in(inputA)[1:], -1, "'id'"},
		"priority":        {`{"parameters":{"priority":-1},` + in(inputA)[1:], -1, "'priority'"},
		"reserved":        {`{"parameters":{"triton_x":1},` + in(inputA)[1:], -1, "reserved for Triton"},
		"parameter array": {`{"parameters":{"q":[1]},` + in(inputA)[1:], -1, "parameter 'q' has invalid type"},
		"depth bomb":      {`{"x":` + strings.Repeat("[", 1_000_000), -1, "100 deep"},
		"header too long": {`{}`, 99, "inference header size should be in range (0, 2), got: 99"},
	} {
		var r openinference.Request

		header := c.header
		if header == -2 {
			header = strings.LastIndexByte(c.body, '}') + 1
		}

		err := r.Decode(pair(), []byte(c.body), header)

		f := fault.From(err)
		if f == nil || f.Code.Status() != 400 || !strings.Contains(f.Message(), c.part) {
			t.Errorf("%s: %v, want %q", name, err, c.part)
		}
	}
}

func TestDecodeChecksStringsAndBools(t *testing.T) {
	t.Parallel()

	m := model(false, []engine.Info{info("s", engine.Bytes, -1), info("b", engine.Bool, 2)}, nil)
	head := func(size int) string {
		return fmt.Sprintf(`{"inputs":[{"name":"s","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":%d}},`+
			`{"name":"b","datatype":"BOOL","shape":[2],"parameters":{"binary_data_size":2}}]}`, size)
	}

	for name, c := range map[string]struct {
		text  string
		bools string
		want  string
	}{
		"good":      {string(str("a", "")), "\x00\x01", ""},
		"one short": {string(str("a")), "\x00\x01", "unexpected number of string elements 1"},
		"overrun":   {"\xff\xff\xff\xffab", "\x00\x01", "incomplete string data"},
		"bool 2":    {string(str("a", "b")), "\x00\x02", "BOOL byte of value 2"},
	} {
		var r openinference.Request

		h := head(len(c.text))

		err := r.Decode(m, []byte(h+c.text+c.bools), len(h))
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestResponseKinds(t *testing.T) {
	t.Parallel()

	outs := []engine.Tensor{
		{Name: "X", Type: engine.FP32, Shape: []int64{1, 3}, Data: fp32(0.25, 2, -1)},
		{Name: "Y", Type: engine.Bytes, Shape: []int64{1}, Data: str("hi")},
	}
	inputs := `"inputs":[{"name":"A","datatype":"FP32","shape":[1,2],"data":[1,2]},{"name":"B","datatype":"INT32","shape":[1,1],"data":[7]}]}`

	const prefix = `{"model_name":"m","model_version":"2","outputs":[`

	for name, c := range map[string]struct{ ask, json, tail string }{
		"all in JSON": {`{`, prefix + `{"name":"X","datatype":"FP32","shape":[1,3],"data":[0.25,2,-1]},{"name":"Y","datatype":"BYTES","shape":[1],"data":["hi"]}]}`, ""},
		"all binary": {
			`{"parameters":{"binary_data_output":true},`,
			prefix + `{"name":"X","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}},{"name":"Y","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":6}}]}`,
			string(fp32(0.25, 2, -1)) + string(str("hi")),
		},
		"listed ones ignore the default": {
			`{"parameters":{"binary_data_output":true},"outputs":[{"name":"X"}],`,
			prefix + `{"name":"X","datatype":"FP32","shape":[1,3],"data":[0.25,2,-1]}]}`, "",
		},
		"classes": {
			`{"outputs":[{"name":"X","parameters":{"classification":2}}],`,
			prefix + `{"name":"X","datatype":"BYTES","shape":[1,2],"data":["2.000000:1:one","0.250000:0:zero"]}]}`, "",
		},
		"binary classes": {
			`{"outputs":[{"name":"Y"},{"name":"X","parameters":{"classification":9,"binary_data":true}}],`,
			prefix + `{"name":"Y","datatype":"BYTES","shape":[1],"data":["hi"]},{"name":"X","datatype":"BYTES","shape":[1,3],"parameters":{"binary_data_size":52}}]}`,
			string(str("2.000000:1:one", "0.250000:0:zero", "-1.000000:2")),
		},
	} {
		var r openinference.Request

		m := pair()
		if err := r.Decode(m, []byte(c.ask+inputs), -1); err != nil {
			t.Errorf("%s: %v", name, err)

			continue
		}

		got, header, err := openinference.AppendResponse([]byte("head"), &r, m, outs)
		if err != nil || string(got) != "head"+c.json+c.tail {
			t.Errorf("%s:\n%q\n%q %v", name, got, c.json+c.tail, err)
		}

		if want := len(c.json); (c.tail == "" && header != -1) || (c.tail != "" && header != want) {
			t.Errorf("%s: header %d, want %d", name, header, want)
		}
	}
}

func TestResponseRefusesHalfFloatsInJSON(t *testing.T) {
	t.Parallel()

	m := model(false, []engine.Info{info("x", engine.FP32)}, []engine.Info{info("h", engine.FP16, 1)})

	var r openinference.Request

	if err := r.Decode(m, []byte(`{"inputs":[{"name":"x","datatype":"FP32","shape":[],"data":[1]}]}`), -1); err != nil {
		t.Fatal(err)
	}

	_, _, err := openinference.AppendResponse(nil, &r, m, []engine.Tensor{{Name: "h", Type: engine.FP16, Shape: []int64{1}, Data: []byte{0, 0}}})
	if !errors.Is(err, &fault.Error{Code: fault.BadTensor}) || !strings.Contains(err.Error(), "sending FP16 data via JSON is not supported") {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"inputs":[`+inputA+`,`+inputB+`]}`), -1)

	head := `{"inputs":[` + inputB + `,{"name":"A","datatype":"FP32","shape":[2,2],"parameters":{"binary_data_size":16}}]}`
	f.Add([]byte(head+"0123456789abcdef"), len(head))
	f.Add([]byte("0123456789abcdef"), 0)

	var r openinference.Request

	m := pair()
	raw := model(true, []engine.Info{info("s", engine.Bytes, -1, 1)}, nil)

	f.Fuzz(func(t *testing.T, body []byte, header int) {
		for _, m := range []*openinference.Model{m, raw} {
			err := r.Decode(m, body, max(header, -1))
			if err != nil {
				if s := fault.From(err).Code.Status(); s != 400 {
					t.Fatalf("status %d: %v", s, err)
				}

				continue
			}

			for i := range r.Inputs {
				if err := openinference.Check(m, i, &r.Inputs[i]); err != nil {
					t.Fatalf("accepted, but %v", err)
				}
			}

			if r.Rows < 1 || r.Rows > m.MaxBatchSize {
				t.Fatalf("%d rows", r.Rows)
			}
		}
	})
}

func BenchmarkDecodeBinary(b *testing.B) {
	m := model(false, []engine.Info{info("x", engine.FP32, -1)}, []engine.Info{info("y", engine.FP32, -1)})

	const n = 1 << 20

	head := fmt.Sprintf(`{"inputs":[{"name":"x","datatype":"FP32","shape":[%d],"parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}`, n/4, n)
	body := append([]byte(head), make([]byte, n)...)

	var r openinference.Request

	b.SetBytes(n)
	b.ReportAllocs()

	out := make([]byte, 0, 2*n)

	for b.Loop() {
		if err := r.Decode(m, body, len(head)); err != nil {
			b.Fatal(err)
		}

		t := r.Inputs[0]
		t.Name = "y"

		if _, _, err := openinference.AppendResponse(out, &r, m, []engine.Tensor{t}); err != nil {
			b.Fatal(err)
		}
	}
}
