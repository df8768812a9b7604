package platform_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"image"
	"image/png"
	"math"
	"mime/multipart"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec/imaging"
	"github.com/sluice-gateway/sluice/runtime/codec/platform"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/spec"
)

func info(name string, t engine.DataType, shape ...int64) engine.Info {
	return engine.Info{Name: name, Type: t, Shape: shape}
}

func compile(tb testing.TB, meta *repo.Meta) *platform.Model {
	tb.Helper()

	m, err := platform.Compile(meta, imaging.NewGate(1<<28))
	if err != nil {
		tb.Fatal(err)
	}

	return m
}

// flowers is a tabular model: a batch of four numbers, and a name for each row.
func flowers() *repo.Meta {
	return &repo.Meta{
		Name: "flowers", Batchable: true, MaxBatchSize: 2,
		Inputs:  []engine.Info{info("x", engine.FP32, -1, 2), info("age", engine.Int64, -1, 1), info("name", engine.Bytes, -1)},
		Outputs: []engine.Info{info("y", engine.FP32, -1, 2)},
	}
}

// echo runs a request: every output row is the row of x.
func echo(t *testing.T, req *platform.Request) string {
	t.Helper()

	ans := req.Answer(nil)

	for first := 0; first < req.Items(); {
		in, n := req.Batch(first)
		y := in[0]
		y.Name = "y"

		if err := ans.Add([]engine.Tensor{y}, n); err != nil {
			t.Fatal(err)
		}

		first += n
	}

	return string(ans.Bytes())
}

func TestTabularRows(t *testing.T) {
	t.Parallel()

	m := compile(t, flowers())

	for body, want := range map[string]string{
		`{"x":[1,2],"age":3,"name":"a"}`:                                                            `{"y":[1,2]}`,
		`{"x":[[1,2]],"age":[3],"name":["a"]}`:                                                      `[{"y":[1,2]}]`,
		`{"x":[[1,2],[3,4],[5,6]],"age":[[3],[4],[5]],"name":["a","b","c"]}`:                        `[{"y":[1,2]},{"y":[3,4]},{"y":[5,6]}]`,
		`{"data":{"req_data":[{"x":[1,2],"age":3,"name":"a"},{"name":"b","age":[4],"x":[3,4.5]}]}}`: `{"data":{"resp_data":[{"y":[1,2]},{"y":[3,4.5]}]}}`,
	} {
		req, err := m.Decode(t.Context(), "application/json", []byte(body))
		if err != nil {
			t.Errorf("%s: %v", body, err)

			continue
		}

		if got := echo(t, req); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}

func TestBatchCarriesEveryInput(t *testing.T) {
	t.Parallel()

	req, err := compile(t, flowers()).Decode(t.Context(), "application/json",
		[]byte(`{"x":[[1,2],[3,4],[5,6]],"age":[[-3],[4],[5]],"name":["a","bcd",""]}`))
	if err != nil {
		t.Fatal(err)
	}

	in, n := req.Batch(0)
	if n != 2 || !slices.Equal(in[1].Shape, []int64{2, 1}) || int64(binary.LittleEndian.Uint64(in[1].Data)) != -3 ||
		!slices.Equal(in[2].Shape, []int64{2}) || string(in[2].Data) != "\x01\x00\x00\x00a\x03\x00\x00\x00bcd" {
		t.Errorf("%d %+v", n, in)
	}

	if in, n = req.Batch(2); n != 1 || string(in[2].Data) != "\x00\x00\x00\x00" || math.Float32frombits(binary.LittleEndian.Uint32(in[0].Data)) != 5 {
		t.Errorf("%d %+v", n, in)
	}
}

func TestTabularRefusals(t *testing.T) {
	t.Parallel()

	m := compile(t, flowers())

	for body, part := range map[string]string{
		`{"x":[1,2],"age":3}`:                                             `"name" is missing`,
		`{"x":[1,2,3],"age":3,"name":"a"}`:                                `"x": The value has shape [3], the model wants [-1 2]`,
		`{"x":[[1,2],[3]],"age":3,"name":"a"}`:                            `"x": The arrays of the value differ`,
		`{"x":["1",2],"age":3,"name":"a"}`:                                `"x": element 0`,
		`{"x":[1,2],"age":3.5,"name":"a"}`:                                `"age": element 0`,
		`{"x":[1,2],"age":3,"name":7}`:                                    `"name": element 0`,
		`{"x":[1,2],"age":3,"name":"a","z":1}`:                            `"z" is unknown; the model takes "x", "age", "name"`,
		`{"x":[1,2],"x":[1,2],"age":3,"name":"a"}`:                        `"x" is given twice`,
		`{"x":[[1,2],[3,4]],"age":3,"name":"a"}`:                          `"age" has 1 values, the field "x" has 2`,
		`{"x":{"a":1},"age":3,"name":"a"}`:                                `"x"`,
		`{"x":null,"age":3,"name":"a"}`:                                   `"x"`,
		`{"x":[],"age":3,"name":"a"}`:                                     `"x"`,
		`{"data":{"req_data":[{"x":[1,2]}]}}`:                             `data.req_data[0]`,
		`{"data":{"req_data":[[1,2]]}}`:                                   `data.req_data[0]: An object is expected`,
		`{"data":{"req_data":3}}`:                                         `"data.req_data" must be an array`,
		`{"data":{"rows":3}}`:                                             `data.rows`,
		`{"data":{"req_data":[{"x":[1,2],"age":3,"name":"a"}]},"more":1}`: `"more"`,
		`[1]`:           `must be a JSON object`,
		`{"x":[1,2]} x`: ``,
	} {
		_, err := m.Decode(t.Context(), "application/json", []byte(body))
		if f := fault.From(err); f == nil || f.Code.Status() != 400 || !strings.Contains(f.Message(), part) {
			t.Errorf("%s: %v, want %q", body, err, part)
		}
	}
}

func TestModelWithoutBatchingTakesOneTensorAtATime(t *testing.T) {
	t.Parallel()

	meta := &repo.Meta{Name: "seq", Inputs: []engine.Info{info("x", engine.FP32, 1, -1)}, Outputs: []engine.Info{info("y", engine.FP32, 1, -1)}}
	m := compile(t, meta)

	for body, want := range map[string]string{
		`{"x":[1,2,3]}`:   `{"y":[1,2,3]}`,
		`{"x":[[1,2,3]]}`: `{"y":[1,2,3]}`,
		`{"data":{"req_data":[[1,2],{"x":[3]}]}}`: `{"data":{"resp_data":[{"y":[1,2]},{"y":[3]}]}}`,
	} {
		req, err := m.Decode(t.Context(), "application/json", []byte(body))
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}

		if got := echo(t, req); got != want {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}

func TestHalvesAreConverted(t *testing.T) {
	t.Parallel()

	for typ, want := range map[engine.DataType]string{ //nolint:exhaustive // the halves
		engine.FP16: "\x00\x3e", engine.BF16: "\xc0\x3f",
	} {
		m := compile(t, &repo.Meta{Name: "h", Inputs: []engine.Info{info("x", typ, 1)}, Outputs: []engine.Info{info("y", typ, 1)}})

		req, err := m.Decode(t.Context(), "application/json", []byte(`{"x":[1.5]}`))
		if err != nil {
			t.Fatal(err)
		}

		if in, _ := req.Batch(0); string(in[0].Data) != want {
			t.Errorf("%s: %q", typ, in[0].Data)
		}

		if got := echo(t, req); got != `{"y":1.5}` && got != `{"y":[1.5]}` {
			t.Errorf("%s: %s", typ, got)
		}
	}
}

func fp32(v ...float32) []byte {
	var b []byte
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}

	return b
}

func TestPostprocessing(t *testing.T) {
	t.Parallel()

	logits := []engine.Tensor{
		{Name: "l", Type: engine.FP32, Shape: []int64{1, 3}, Data: fp32(0, float32(math.Log(3)), float32(math.Log(6)))},
		{Name: "p", Type: engine.FP32, Shape: []int64{1, 1}, Data: fp32(0)},
		{Name: "s", Type: engine.Bytes, Shape: []int64{1, 2}, Data: []byte("\x01\x00\x00\x00a\x02\x00\x00\x00\"b")},
		{Name: "i", Type: engine.Int64, Shape: []int64{1}, Data: []byte{7, 0, 0, 0, 0, 0, 0, 0}},
	}

	for name, c := range map[string]struct {
		post   []spec.Postprocess
		labels []string
		want   string
	}{
		"softmax": {
			[]spec.Postprocess{{Output: "l", Kind: "classification", Activation: "softmax"}},
			[]string{"a", "b", "c"},
			`{"predicted_label":"c","scores":[["c","0.600"],["b","0.300"],["a","0.100"]]}`,
		},
		"top k without labels": {
			[]spec.Postprocess{{Output: "l", Kind: "classification", Activation: "softmax", TopK: 1}},
			nil,
			`{"predicted_label":"2","scores":[["2","0.600"]]}`,
		},
		"threshold": {
			[]spec.Postprocess{{Output: "l", Kind: "classification", Activation: "softmax", Threshold: 0.25}},
			nil,
			`{"predicted_label":"2","scores":[["2","0.600"],["1","0.300"]]}`,
		},
		"nothing passes": {
			[]spec.Postprocess{{Output: "l", Kind: "classification", Activation: "softmax", Threshold: 0.9}},
			nil,
			`{"predicted_label":"","scores":[]}`,
		},
		"two classes of one value": {
			[]spec.Postprocess{{Output: "p", Kind: "classification", Activation: "sigmoid"}},
			[]string{"no", "yes"},
			`{"predicted_label":"no","scores":[["no","0.500"],["yes","0.500"]]}`,
		},
		"several": {[]spec.Postprocess{
			{Output: "l", Kind: "classification", TopK: 1, Field: "class"},
			{Output: "s", Kind: "tensor", Field: "words"},
			{Output: "p", Kind: "tensor", Activation: "sigmoid"},
			{Output: "i"},
		}, nil, `{"class":{"predicted_label":"2","scores":[["2","1.792"]]},"words":["a","\"b"],"p":[0.5],"i":7}`},
		"default": {nil, nil, `{"l":[0,1.0986123,1.7917595],"p":[0],"s":["a","\"b"],"i":7}`},
	} {
		meta := &repo.Meta{
			Name: "m", Batchable: true, Labels: c.labels, Inputs: []engine.Info{info("x", engine.FP32, -1, 1)},
			Outputs: []engine.Info{info("l", engine.FP32, -1, 3), info("p", engine.FP32, -1, 1), info("s", engine.Bytes, -1, 2), info("i", engine.Int64, -1)},
			Config:  spec.PackageConfig{Serving: &spec.Serving{Postprocess: c.post}},
		}

		req, err := compile(t, meta).Decode(t.Context(), "application/json", []byte(`{"x":[1]}`))
		if err != nil {
			t.Fatal(err)
		}

		ans := req.Answer(nil)
		if err := ans.Add(logits, 1); err != nil {
			t.Fatal(err)
		}

		if got := string(ans.Bytes()); got != c.want || !json.Valid([]byte(got)) {
			t.Errorf("%s:\n%s\n%s", name, got, c.want)
		}
	}
}

func TestCompileRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()

	pic := &spec.Image{Width: 2, Height: 2, Channels: 1}

	for name, s := range map[string]*spec.Serving{
		"input":   {Preprocess: []spec.Preprocess{{Input: "nope", Image: pic}}},
		"shape":   {Preprocess: []spec.Preprocess{{Input: "x", Image: &spec.Image{Width: 3, Height: 2, Channels: 1}}}},
		"picture": {Preprocess: []spec.Preprocess{{Input: "x", Image: &spec.Image{Width: 2, Height: 2, Channels: 4}}}},
		"output":  {Postprocess: []spec.Postprocess{{Output: "nope"}}},
		"strings": {Postprocess: []spec.Postprocess{{Output: "s", Kind: "classification"}}},
	} {
		meta := &repo.Meta{
			Batchable: true, Inputs: []engine.Info{info("x", engine.FP32, -1, 1, 2, 2)}, Outputs: []engine.Info{info("s", engine.Bytes, -1)},
			Config: spec.PackageConfig{Serving: s},
		}

		if _, err := platform.Compile(meta, imaging.NewGate(1)); !errors.Is(err, &fault.Error{Code: fault.ModelInvalid}) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func picture(tb testing.TB) []byte {
	tb.Helper()

	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 3, 3))); err != nil {
		tb.Fatal(err)
	}

	return b.Bytes()
}

func pictures(tb testing.TB) *platform.Model {
	tb.Helper()

	return compile(tb, &repo.Meta{
		Batchable: true, Inputs: []engine.Info{info("px", engine.Uint8, -1, 4)}, Outputs: []engine.Info{info("y", engine.Uint8, -1, 4)},
		Config: spec.PackageConfig{Serving: &spec.Serving{
			Preprocess: []spec.Preprocess{{Input: "px", Field: "photo", Image: &spec.Image{Width: 2, Height: 2, Channels: 1, Layout: "FLAT"}}},
			Limits:     spec.ServingLimits{MaxImages: 3},
		}},
	})
}

func TestPictureFieldsAndForms(t *testing.T) {
	t.Parallel()

	m := pictures(t)
	pic := string(picture(t))
	head := func(name string) string {
		return "--B\r\nContent-Disposition: form-data; name=\"" + name + "\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n"
	}

	for name, c := range map[string]struct {
		body  string
		items int
		part  string
	}{
		"declared":            {head("photo") + pic + "\r\n--B--\r\n", 1, ""},
		"alias":               {head("images") + pic + "\r\n" + head("image") + pic + "\r\n" + head("px") + pic + "\r\n--B--", 3, ""},
		"brackets":            {head("images[]") + pic + "\r\n--B--\r\nepilogue", 1, ""},
		"preamble":            {"hello\r\n" + head("image") + pic + "\r\n--B--\r\n", 1, ""},
		"bare line ends":      {strings.ReplaceAll(head("image"), "\r\n", "\n") + pic + "\n--B--\n", 1, ""},
		"space after":         {strings.Replace(head("image"), "--B\r\n", "--B  \r\n", 1) + pic + "\r\n--B--", 1, ""},
		"no files":            {"--B--\r\n", 0, `"photo" is missing`},
		"empty file":          {head("image") + "\r\n--B--\r\n", 0, `"image", file "a.png": The image is empty`},
		"unknown":             {head("upload") + pic + "\r\n--B--\r\n", 0, `"upload" is unknown`},
		"too many":            {strings.Repeat(head("image")+pic+"\r\n", 4) + "--B--", 0, "more than 3 images"},
		"no end":              {head("image") + pic, 0, "broken off"},
		"no start":            {pic, 0, "broken off"},
		"no name":             {"--B\r\nContent-Disposition: form-data\r\n\r\nx\r\n--B--", 0, "no name"},
		"bad disposition":     {"--B\r\nContent-Disposition: nonsense;;\r\n\r\nx\r\n--B--", 0, "Content-Disposition"},
		"transfer encoding":   {"--B\r\nContent-Disposition: form-data; name=image\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n--B--", 0, "base64"},
		"endless header":      {"--B\r\n" + strings.Repeat("A: b\r\n", 5000), 0, "broken off"},
		"header without text": {"--B\r\nnocolon\r\n\r\n--B--", 0, "broken off"},
	} {
		req, err := m.Decode(t.Context(), `multipart/form-data; boundary="B"`, []byte(c.body))
		if c.part != "" {
			if f := fault.From(err); f == nil || f.Code.Status() != 400 || !strings.Contains(f.Message(), c.part) {
				t.Errorf("%s: %v, want %q", name, err, c.part)
			}

			continue
		}

		if err != nil || req.Items() != c.items {
			t.Errorf("%s: %v", name, err)
		}
	}

	for _, kind := range []string{"multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + strings.Repeat("b", 300)} {
		if _, err := m.Decode(t.Context(), kind, []byte("x")); !errors.Is(err, &fault.Error{Code: fault.BadRequest}) {
			t.Errorf("%.50s: %v", kind, err)
		}
	}
}

func TestFormsCarryNumbersToo(t *testing.T) {
	t.Parallel()

	var b bytes.Buffer

	w := multipart.NewWriter(&b)
	for _, f := range [][2]string{{"x", "[1,2]"}, {"age", "7"}, {"name", `"n"`}} {
		if err := w.WriteField(f[0], f[1]); err != nil {
			t.Fatal(err)
		}
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	req, err := compile(t, flowers()).Decode(t.Context(), w.FormDataContentType(), b.Bytes())
	if err != nil {
		t.Fatal(err)
	}

	if got := echo(t, req); got != `{"y":[1,2]}` {
		t.Error(got)
	}
}

func TestDecodeBase64(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]string{
		"aGk=": "hi", "aGk": "hi", "data:image/png;base64,aGk=": "hi", "_-8=": "\xff\xef", "aG\nk=": "hi", "//8=\n": "\xff\xff",
	} {
		if got, err := platform.DecodeBase64([]byte(text)); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}

	for _, text := range []string{"", "a", "***", "data:image/png,abc", "data:;base64,"} {
		if _, err := platform.DecodeBase64([]byte(text)); !errors.Is(err, &fault.Error{Code: fault.BadImage}) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	pic := string(picture(f))
	kinds := []string{"application/json", "multipart/form-data; boundary=B", "image/png", ""}

	f.Add([]byte(`{"data":{"req_data":[{"x":[1,2],"age":3,"name":"a"}]}}`), uint8(0))
	f.Add([]byte(`{"x":[[1,2],[3,4]],"age":[[3],[4]],"name":["a","b"]}`), uint8(0))
	f.Add([]byte(`{"images":["aGk="]}`), uint8(0))
	f.Add([]byte("--B\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n"+pic+"\r\n--B--"), uint8(1))
	f.Add([]byte(pic), uint8(2))

	models := []*platform.Model{pictures(f), compile(f, flowers())}

	f.Fuzz(func(t *testing.T, body []byte, kind uint8) {
		for _, m := range models {
			req, err := m.Decode(t.Context(), kinds[int(kind)%len(kinds)], body)
			if err != nil {
				if s := fault.From(err).Code.Status(); s >= 500 {
					t.Fatalf("status %d: %v", s, err)
				}

				continue
			}

			for first := 0; first < req.Items(); {
				in, n := req.Batch(first)
				for _, tensor := range in {
					if size := tensor.Type.Size(); size > 0 && int64(len(tensor.Data)) != engine.Elements(tensor.Shape)*int64(size) {
						t.Fatalf("%d bytes for %v", len(tensor.Data), tensor.Shape)
					}
				}

				first += n
			}
		}
	})
}
