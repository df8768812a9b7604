package serve_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/runtime/serve"
	"github.com/sluice-gateway/sluice/spec"
)

const pairBody = `{"inputs":[{"name":"INPUT0","shape":[1,4],"datatype":"INT32","data":[1,2,3,4]},` +
	`{"name":"INPUT1","shape":[1,4],"datatype":"INT32","data":[5,6,7,8]}]}`

func TestV2Routes(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	w.state.SetReady()

	for _, c := range []struct {
		method, path, body string
		status             int
		part               string
	}{
		{"GET", "/v2", "", 200, `"name":"sluice"`},
		{"GET", "/v2/", "", 200, `"version":"1.2.3"`},
		{"GET", "/v2", "", 200, `binary_tensor_data`},
		{"POST", "/v2", "", 405, `{"error":"Method Not Allowed"}`},
		{"GET", "/v2/health/live", "", 200, ``},
		{"GET", "/v2/models", "", 200, `"pair"`},
		{"GET", "/v2/models/pair", "", 200, `{"name":"pair","versions":["1"],"platform":"onnxruntime_onnx","inputs":[{"name":"INPUT0","datatype":"INT32","shape":[-1,4]}`},
		{"GET", "/v2/models/pair/versions/1", "", 200, `"pair"`},
		{"GET", "/v2/models/pair/versions/9", "", 404, `{"error":"Request for unknown model: 'pair' version 9 is not found"}`},
		{"GET", "/v2/models/nope", "", 404, `{"error":"Request for unknown model: 'nope' is not found"}`},
		{"GET", "/v2/models/pair/ready", "", 200, `{"name":"pair","ready":true}`},
		{"GET", "/v2/models/nope/ready", "", 404, `error`},
		{"GET", "/v2/models/pair/config", "", 200, `"max_batch_size":8`},
		{"GET", "/v2/models/pair/config", "", 200, `"data_type":"TYPE_INT32","dims":[4]`},
		{"GET", "/v2/models/text/config", "", 200, `"TYPE_STRING"`},
		{"GET", "/v2/models/text/config", "", 200, `"instance_group":[{"name":"text","kind":"KIND_CPU","count":2,"gpus":[]}],"default_model_filename":"net.onnx"`},
		{"GET", "/v2/models/pair/config", "", 200, `"instance_group":[{"name":"pair","kind":"KIND_GPU","count":2,"gpus":[1]}]`},
		{"GET", "/v2/models/pair/config", "", 200, `"parameters":{"provider":{"string_value":"cuda"}}`},
		{"GET", "/v2/models/pair/stats", "", 200, `{"model_stats":[{"name":"pair","version":"1","last_inference":0,"inference_count":3,"execution_count":2`},
		{"GET", "/v2/models/pair/versions/1/stats", "", 200, `"success":{"count":3,"ns":1000000}`},
		{"GET", "/v2/models/stats", "", 200, `"text"`},
		{"GET", "/v2/models/nope/stats", "", 404, `nope`},
		{"GET", "/v2/models/pair/infer", "", 405, `Method Not Allowed`},
		{"POST", "/v2/models/pair/infer", pairBody, 200, `"data":[5,6,7,8]`},
		{"POST", "/v2/models/pair/versions/1/infer", pairBody, 200, `"model_version":"1"`},
		{"POST", "/v2/models/pair/infer", "", 400, `The document is empty`},
		{"POST", "/v2/models/nope/infer", pairBody, 404, `unknown model`},
		{"POST", "/v2/models//infer", pairBody, 404, `Not Found`},
		{"POST", "/v2/models/pair/explain", pairBody, 404, `{"error":"Not Found"}`},
		{"GET", "/v2/nothing", "", 404, `{"error":"Not Found"}`},
		{"GET", "/v2/systemsharedmemory/status", "", 501, `{"error":"the system shared memory extension is not supported by this server"}`},
		{"POST", "/v2/systemsharedmemory/region/x/register", "{}", 501, `system shared memory`},
		{"POST", "/v2/cudasharedmemory/unregister", "", 501, `{"error":"the CUDA shared memory extension is not supported by this server"}`},
		{"GET", "/v2/trace/setting", "", 501, `{"error":"the trace extension is not supported by this server"}`},
		{"POST", "/v2/models/pair/trace/setting", "{}", 501, `the trace extension`},
		{"POST", "/v2/logging", "{}", 501, `the logging extension`},
		{"POST", "/v2/models/pair/generate", "{}", 501, `the generate extension`},
		{"POST", "/v2/repository/index", "", 200, `{"name":"broken","version":"1","state":"UNAVAILABLE","reason":"bad file"}`},
		{"POST", "/v2/repository/index", `{"ready":true}`, 200, `"state":"READY"`},
		{"POST", "/v2/repository/index", `{"ready":`, 400, `failed to parse`},
		{"GET", "/v2/repository/index", "", 405, `Method Not Allowed`},
		{"POST", "/v2/repository/models/pair/load", "", 200, ``},
		{"POST", "/v2/repository/models/pair/unload", `{"parameters":{"unload_dependents":true}}`, 200, ``},
		{"POST", "/v2/repository/models/nope/load", "", 404, `failed to load 'nope', failed to poll from model repository`},
		{"POST", "/v2/repository/models/pair/load", `{"parameters":{"config":"{}"}}`, 501, `'config' is not supported`},
		{"POST", "/v2/repository/disk/index", "", 501, `'repository_name' specification is not supported`},
		{"POST", "/v2/repository/disk/models/pair/load", "", 501, `'repository_name' specification is not supported`},
		{"POST", "/v2/repository/models/load", "", 404, `Not Found`},
	} {
		a := w.send(t, c.method, c.path, c.body)
		if a.status != c.status || !strings.Contains(a.body, c.part) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, a.status, a.body, c.status, c.part)
		}

		if a.body != "" && (!json.Valid([]byte(a.body)) || a.header.Get("Content-Type") != "application/json") {
			t.Errorf("%s %s: %s of type %q", c.method, c.path, a.body, a.header.Get("Content-Type"))
		}
	}

	if a := w.send(t, "POST", "/v2/repository/index", `{"ready":true}`); strings.Contains(a.body, "broken") {
		t.Errorf("ready index shows %s", a.body)
	}
}

func binaryRequest() (body, header string) {
	head := `{"parameters":{"binary_data_output":true},"inputs":[` +
		`{"name":"INPUT0","shape":[1,4],"datatype":"INT32","parameters":{"binary_data_size":16}},` +
		`{"name":"INPUT1","shape":[1,4],"datatype":"INT32","parameters":{"binary_data_size":16}}]}`

	var b []byte
	for i := range uint32(8) {
		b = binary.LittleEndian.AppendUint32(b, i)
	}

	return head + string(b), strconv.Itoa(len(head))
}

func TestV2BinaryTensorsAndCompression(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	body, length := binaryRequest()
	n, _ := strconv.Atoi(length)

	squeeze := map[string]func(string) string{
		"": func(s string) string { return s },
		"gzip": func(s string) string {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = io.WriteString(z, s)
			_ = z.Close()

			return b.String()
		},
		"deflate": func(s string) string {
			var b bytes.Buffer
			z := zlib.NewWriter(&b)
			_, _ = io.WriteString(z, s)
			_ = z.Close()

			return b.String()
		},
	}
	expand := map[string]func(io.Reader) (io.ReadCloser, error){
		"gzip":    func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) },
		"deflate": zlib.NewReader,
	}

	for in, f := range squeeze {
		for _, out := range []string{"identity", "gzip", "deflate"} {
			a := w.send(t, "POST", "/v2/models/pair/infer", f(body), "Inference-Header-Content-Length", length,
				"Content-Encoding", in, "Accept-Encoding", out)
			if a.status != 200 || a.header.Get("Content-Type") != "application/octet-stream" {
				t.Fatalf("%s -> %s: %d %q", in, out, a.status, a.body)
			}

			plain := a.body

			if g := expand[out]; g != nil {
				if a.header.Get("Content-Encoding") != out {
					t.Fatalf("%s -> %s: encoded as %q", in, out, a.header.Get("Content-Encoding"))
				}

				r, err := g(strings.NewReader(a.body))
				if err != nil {
					t.Fatal(err)
				}

				b, err := io.ReadAll(r)
				if err != nil {
					t.Fatal(err)
				}

				plain = string(b)
			}

			head, err := strconv.Atoi(a.header.Get("Inference-Header-Content-Length"))
			if err != nil || plain[head:] != body[n:] || !json.Valid([]byte(plain[:head])) {
				t.Errorf("%s -> %s: %q, %v", in, out, plain, err)
			}
		}
	}

	for name, c := range map[string]struct {
		body, encoding, header string
		status                 int
		part                   string
	}{
		"foreign":     {pairBody, "br", "", 501, "br"},
		"not gzip":    {pairBody, "gzip", "", 400, "not valid gzip"},
		"cut gzip":    {squeeze["gzip"](pairBody)[:20], "gzip", "", 400, "not valid gzip"},
		"bomb":        {squeeze["gzip"](strings.Repeat(" ", 2<<20)), "gzip", "", 413, "decompresses to more than 1048576"},
		"header text": {body, "", "x", 400, "Unable to parse Inference-Header-Content-Length, got: x"},
		"header big":  {body, "", "99999", 400, "inference header size should be in range (0, " + strconv.Itoa(len(body)) + "), got: 99999"},
		"header neg":  {body, "", "-1", 400, "inference header size"},
	} {
		h := []string{"Content-Encoding", c.encoding}
		if c.header != "" {
			h = append(h, "Inference-Header-Content-Length", c.header)
		}

		a := w.send(t, "POST", "/v2/models/pair/infer", c.body, h...)
		if a.status != c.status || !strings.Contains(a.body, c.part) {
			t.Errorf("%s: %d %s, want %d with %s", name, a.status, a.body, c.status, c.part)
		}

		if c.status == 501 && a.header.Get("Accept-Encoding") != "gzip, deflate" {
			t.Errorf("%s: Accept-Encoding %q", name, a.header.Get("Accept-Encoding"))
		}
	}

	if a := w.send(t, "POST", "/", "x", "Content-Encoding", "br"); a.status != 415 || !strings.Contains(a.body, "Sluice.1004") {
		t.Errorf("POST /: %d %s", a.status, a.body)
	}
}

func TestV2AcceptEncodingWeights(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})

	for accept, want := range map[string]string{
		"gzip;q=0.5, deflate": "deflate", "gzip, deflate": "gzip", "br": "", "identity": "", "gzip;q=0": "", "*": "gzip",
		"identity;q=1, gzip;q=0.5": "", "deflate;q=0.2;x, gzip;q=zz": "deflate", "GZIP": "gzip",
	} {
		a := w.send(t, "POST", "/v2/models/pair/infer", pairBody, "Accept-Encoding", accept)
		if got := a.header.Get("Content-Encoding"); got != want && accept != "deflate;q=0.2;x, gzip;q=zz" {
			t.Errorf("%s: %q, want %q", accept, got, want)
		}
	}
}

func TestV2PicturesAsBytes(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	light, dark := picture(t, 16, 255), picture(t, 5, 0)

	elem := func(s string) string { return string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s }
	data := elem(light) + elem(dark)
	head := `{"inputs":[{"name":"image","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":` + strconv.Itoa(len(data)) + `}}],` +
		`"outputs":[{"name":"logits","parameters":{"classification":1}}]}`

	a := w.send(t, "POST", "/v2/models/digits/infer", head+data, "Inference-Header-Content-Length", strconv.Itoa(len(head)))
	if a.status != 200 || !strings.Contains(a.body, `:1:light`) || !strings.Contains(a.body, `:0:dark`) {
		t.Errorf("%d %s", a.status, a.body)
	}

	if a = w.send(t, "POST", "/v2/models/digits/infer", light, "Inference-Header-Content-Length", "0"); a.status != 200 {
		t.Errorf("raw picture: %d %s", a.status, a.body)
	}

	head = `{"inputs":[{"name":"x","shape":[1,1],"datatype":"BYTES","data":["bm90IGEgcGljdHVyZQ=="]}]}`
	if a = w.send(t, "POST", "/v2/models/digits/infer", head); a.status != 400 || !strings.Contains(a.body, "input 'x'") {
		t.Errorf("not a picture: %d %s", a.status, a.body)
	}
}

func TestV2CarriesStringsAndHalves(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})

	a := w.send(t, "POST", "/v2/models/text/infer", `{"inputs":[{"name":"s","shape":[2,1],"datatype":"BYTES","data":["a",["é\""]]}]}`)
	if a.status != 200 || !strings.Contains(a.body, `"data":["a","é\""]`) {
		t.Errorf("%d %s", a.status, a.body)
	}

	for body, want := range map[string]string{
		`{"inputs":[{"name":"h","shape":[2],"datatype":"FP16","data":[1,2]}]}`: "receiving FP16 data via JSON is not supported",
	} {
		if a := w.send(t, "POST", "/v2/models/half/infer", body); a.status != 400 || !strings.Contains(a.body, want) {
			t.Errorf("%d %s", a.status, a.body)
		}
	}

	head := `{"inputs":[{"name":"h","shape":[2],"datatype":"FP16","parameters":{"binary_data_size":4}}],"outputs":[{"name":"OUT_h","parameters":{"binary_data":true}}]}`

	a = w.send(t, "POST", "/v2/models/half/infer", head+"\x00\x3c\x00\x40", "Inference-Header-Content-Length", strconv.Itoa(len(head)))
	if a.status != 200 || !strings.HasSuffix(a.body, "}\x00\x3c\x00\x40") {
		t.Errorf("%d %q", a.status, a.body)
	}

	if a := w.send(t, "POST", "/v2/models/one/infer", `{"inputs":[{"name":"x","shape":[3],"datatype":"FP32","data":[NaN,-Infinity,1e-3]}]}`); a.status != 200 ||
		!strings.Contains(a.body, "[NaN,-Infinity,0.001]") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestV2PriorityFallsBackToTheDefault(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	m := w.models.models["pair"]
	m.meta.Config.Serving = &spec.Serving{Batching: &spec.Batching{PriorityLevels: 2}}

	for asked, want := range map[string]int{"0": 0, "1": 1, "2": 2, "3": 0} {
		a := w.send(t, "POST", "/v2/models/pair/infer", `{"parameters":{"priority":`+asked+`,"timeout":70},`+pairBody[1:])
		if r := m.last.Load(); a.status != 200 || r.Priority != want || r.QueueTimeout != 70*time.Microsecond {
			t.Errorf("%s: %d, priority %d, timeout %v", asked, a.status, r.Priority, r.QueueTimeout)
		}
	}
}
