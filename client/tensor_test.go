package client_test

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/client"
)

// mirror answers a V2 request with its inputs as outputs, in the form in which they came.
func mirror(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	head, raw := body, []byte(nil)

	if n, err := strconv.Atoi(r.Header.Get("Inference-Header-Content-Length")); err == nil {
		head, raw = body[:n], body[n:]
	}

	var in map[string]json.RawMessage

	_ = json.Unmarshal(head, &in)
	out, _ := json.Marshal(map[string]any{"model_name": "m", "model_version": "1", "id": in["id"], "outputs": in["inputs"]})

	if raw != nil {
		w.Header().Set("Inference-Header-Content-Length", strconv.Itoa(len(out)))
	}

	_, _ = w.Write(append(out, raw...))
}

func TestInferBothWays(t *testing.T) {
	t.Parallel()

	f := newFleet(t)
	f.instance("i", "m", 100, mirror)

	c := f.client(nil)
	floats, ints := []float32{0, -1.5, 3.4e38, 1e-45}, []int64{math.MinInt64, -1, 0, math.MaxInt64}
	texts := []string{"", "one", "zwölf \"quoted\""}

	for _, asJSON := range []bool{false, true} {
		out, err := c.Infer(t.Context(), "m", &client.InferRequest{ID: "7", JSON: asJSON, Inputs: []client.Tensor{
			client.Float32s("f", []int64{2, 2}, floats), client.Int64s("i", []int64{4}, ints), client.Strings("s", []int64{3}, texts),
			{Name: "b", Datatype: "BOOL", Shape: []int64{2}, Raw: []byte{1, 0}},
			{Name: "e", Datatype: "UINT8", Shape: []int64{0}},
		}})
		if err != nil {
			t.Fatalf("JSON %v: %v", asJSON, err)
		}

		get := func(name string) *client.Tensor {
			o, ok := out.Output(name)
			if !ok {
				t.Fatalf("no output %s", name)
			}

			return o
		}

		gotF, err1 := get("f").Float32s()
		gotI, err2 := get("i").Int64s()
		gotS, err3 := get("s").Strings()

		if err1 != nil || err2 != nil || err3 != nil || !reflect.DeepEqual(gotF, floats) || !reflect.DeepEqual(gotI, ints) ||
			!reflect.DeepEqual(gotS, texts) || !bytes.Equal(get("b").Raw, []byte{1, 0}) || len(get("e").Raw) != 0 || out.ID != "7" || out.Instance != "i" {
			t.Errorf("JSON %v: %v %v %v %v %v %v %+v", asJSON, gotF, gotI, gotS, err1, err2, err3, out)
		}
	}
}

func TestBadTensorsAreNotSent(t *testing.T) {
	t.Parallel()

	f := newFleet(t)
	f.instance("i", "m", 100, func(http.ResponseWriter, *http.Request) { t.Error("it was sent") })

	c := f.client(nil)

	for name, in := range map[string]client.Tensor{
		"too few":     client.Float32s("x", []int64{2, 2}, []float32{1}),
		"negative":    client.Float32s("x", []int64{-1}, []float32{1}),
		"overflow":    {Name: "x", Datatype: "UINT8", Shape: []int64{1 << 40, 1 << 40}},
		"datatype":    {Name: "x", Datatype: "FP8", Shape: []int64{1}, Raw: []byte{1}},
		"half values": {Name: "x", Datatype: "FP32", Shape: []int64{1}, Raw: []byte{1, 2, 3, 4, 5}},
		"cut text":    {Name: "x", Datatype: "BYTES", Shape: []int64{1}, Raw: []byte{9, 0, 0, 0, 'a'}},
	} {
		if _, err := c.Infer(t.Context(), "m", &client.InferRequest{Inputs: []client.Tensor{in}}); err == nil {
			t.Errorf("%s: sent", name)
		}
	}

	nan := client.Float32s("x", []int64{1}, []float32{float32(math.NaN())})
	if _, err := c.Infer(t.Context(), "m", &client.InferRequest{JSON: true, Inputs: []client.Tensor{nan}}); err == nil {
		t.Error("NaN went as JSON")
	}
}

func TestBrokenAnswersAreErrors(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct{ header, body string }{
		"no JSON":       {"", "hello"},
		"length beyond": {"999", "{}"},
		"no length":     {"x", "{}"},
		"short":         {"", `{"outputs":[{"name":"y","shape":[2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}`},
		"other count":   {"", `{"outputs":[{"name":"y","shape":[2],"datatype":"FP32","data":[1]}]}`},
		"text as FP32":  {"", `{"outputs":[{"name":"y","shape":[1],"datatype":"FP32","data":["a"]}]}`},
		"too large":     {"", `{"outputs":[{"name":"y","shape":[1],"datatype":"INT8","data":[300]}]}`},
		"no data":       {"", `{"outputs":[{"name":"y","shape":[1],"datatype":"INT8"}]}`},
	} {
		f := newFleet(t)
		f.instance("i", "m", 100, func(w http.ResponseWriter, _ *http.Request) {
			if tc.header != "" {
				w.Header().Set("Inference-Header-Content-Length", tc.header)
			}

			_, _ = io.WriteString(w, tc.body)
		})

		_, err := f.client(nil).Infer(t.Context(), "m", &client.InferRequest{Inputs: []client.Tensor{client.Float32s("x", []int64{1}, []float32{1})}})
		if err == nil || !strings.Contains(err.Error(), "read the answer") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
