package spec_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/spec"
)

// paths lists where the mistakes of err stand.
func paths(t *testing.T, err error) []string {
	t.Helper()

	var joined interface{ Unwrap() []error }

	errs := []error{err}
	if errors.As(err, &joined) {
		errs = joined.Unwrap()
	}

	out := make([]string, 0, len(errs))

	for _, e := range errs {
		var fe *spec.FieldError
		if !errors.As(e, &fe) {
			t.Fatalf("%v is no FieldError", e)
		}

		out = append(out, fe.Path)
	}

	slices.Sort(out)

	return out
}

func TestParsePackageConfigReadsEverything(t *testing.T) {
	t.Parallel()

	c, err := spec.ParsePackageConfig([]byte(`{
		"model_type":"ONNX","model_algorithm":"image_classification","runtime":"python3.6","tunable":{"x":[null]},
		"metrics":{"f1":0.345294},"dependencies":[{"installer":"pip"}],
		"apis":[{}, {"url":"/a","method":"get","protocol":"HTTPS",
		  "request":{"Content-Type":"multipart/form-data","data":{"type":"object","properties":{"images":{"type":"file"}}}},
		  "response":{"Content-type":"application/json","data":{"type":"object","properties":{"scores":{"type":"array","items":[{"type":"array","items":{"type":"number"}}]}}}}}],
		"health":{"check_method":"http","protocol":"http","url":"/health","initial_delay_seconds":"60","timeout_seconds":10,"failure_threshold":"3"},
		"readiness_health":null,"port":"8080","Serving":{"ignored":"other case"},
		"serving":{"max_batch_size":3.2e1,"instances":2.0,"threads":{"intra_op":1},
		  "execution":{"provider":"cuda","fallback":["cpu"]},
		  "batching":{"preferred_batch_sizes":[4,8],"max_queue_delay_microseconds":100,"priority_levels":3,"default_priority":2},
		  "warmup":{"batch_sizes":[1,32],"shapes":{"in put":[8,8]}},
		  "preprocess":[{"input":"x","image":{"width":8,"height":8,"channels":1,"layout":"FLAT","invert":"auto","background":"auto","mean":[0.5],"std":[0.25]}}],
		  "postprocess":[{"output":"y","activation":"softmax","top_k":3},{"output":"y","kind":"tensor"}],
		  "labels":["a","b"],"limits":{"max_images":2}}}`))
	if err != nil {
		t.Fatal(err)
	}

	if c.Engine() != spec.EngineONNX || c.Port != 8080 || c.ModelAlgorithm != "image_classification" {
		t.Errorf("head = %+v", c)
	}

	if a := c.APIs; len(a) != 2 || a[0].URL != "/" || a[0].Method != http.MethodPost || a[1].Method != http.MethodGet || a[1].Protocol != "https" {
		t.Errorf("apis = %+v", a)
	} else if a[1].Request.ContentType != "multipart/form-data" || a[1].Response.Data == nil {
		t.Errorf("messages = %+v %+v", a[1].Request, a[1].Response)
	}

	want := spec.Health{CheckMethod: "HTTP", Protocol: "http", URL: "/health", InitialDelaySeconds: 60, TimeoutSeconds: 10, FailureThreshold: 3}
	if c.Health == nil || *c.Health != want || c.ReadinessHealth != nil {
		t.Errorf("health = %+v, readiness = %+v", c.Health, c.ReadinessHealth)
	}

	s := c.Serving
	if s == nil || s.MaxBatchSize != 32 || s.Instances != 2 || s.Batching.DefaultPriority != 2 ||
		s.Preprocess[0].Image.Layout != "FLAT" || s.Warmup.Shapes["in put"][1] != 8 || s.Postprocess[1].Kind != "tensor" {
		t.Errorf("serving = %+v", s)
	}
}

// A v1 client states model_type beside config.json, so the text may lack it.
func TestParsePackageConfigReadsTheV1Sample(t *testing.T) {
	t.Parallel()

	c, err := spec.ParsePackageConfig([]byte(`{"protocol":"http","port":"8080","health":{"check_method":"HTTP","protocol":"http",
		"url":"/health","period_seconds":"5","failure_threshold":"10","initial_delay_seconds":"12"}}`))
	if err != nil || c.Port != 8080 || c.Health.PeriodSeconds != 5 {
		t.Fatalf("c = %+v, err = %v", c, err)
	}

	c.ModelType = "Custom"
	if got := paths(t, c.CheckEngine()); !reflect.DeepEqual(got, []string{"command"}) {
		t.Errorf("CheckEngine complains about %v", got)
	}
}

func TestParsePackageConfigTakesTheLastOfDuplicates(t *testing.T) {
	t.Parallel()

	c, err := spec.ParsePackageConfig([]byte(`{"model_type":"Custom","serving":{"labels":["old"],"instances":4},"model_type":"ONNX","serving":{"instances":2}}`))
	if err != nil || c.Serving.Instances != 2 || len(c.Serving.Labels) != 0 {
		t.Fatalf("c = %+v, err = %v", c, err)
	}
}

func TestParsePackageConfigReportsEveryMistakeWithItsPath(t *testing.T) {
	t.Parallel()

	_, err := spec.ParsePackageConfig([]byte(`{"model_type":"Onnx","model_algorithm":"9x","port":"http",
		"apis":[{"url":"nope","method":"BREW"},{"request":{"data":{"properties":{"a":{"items":3}}}}}],
		"health":{"check_method":"EXEC","period_seconds":"-1"},
		"serving":{"max_batchsize":3,"instances":-1,"preprocess":[{"image":{"width":-8,"height":8,"channels":2,"layout":"NCHW"}}],
		  "batching":{"max_queue_delay_microseconds":"10"},"we.ird":1}}`))

	want := []string{
		"apis[0].method", "apis[0].url", "apis[1].request.data.properties.a.items", "health.period_seconds",
		"model_algorithm", "model_type", "port", "serving.batching.max_queue_delay_microseconds", "serving.instances",
		"serving.max_batchsize", "serving.preprocess[0].image.channels", "serving.preprocess[0].image.layout",
		"serving.preprocess[0].image.width", "serving.preprocess[0].input", `serving["we.ird"]`,
	}
	if got := paths(t, err); !reflect.DeepEqual(got, want) {
		t.Errorf("mistakes at\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	if !strings.Contains(err.Error(), "did you mean max_batch_size?") {
		t.Errorf("no suggestion in %v", err)
	}
}

func TestParsePackageConfigRefusesOneThing(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ name, doc, path, msg string }{
		{"empty", " \n", "", "is empty"},
		{"not an object", `[]`, "", "want an object, got an array"},
		{"null", `null`, "", "want an object, got null"},
		{"syntax with place", "{\n \"a\": tru}", "", "line 2, column 10"},
		{"cut short", `{"a":`, "", "ends too early"},
		{"text after the end", `{} {}`, "", "after the end"},
		{"bad UTF-8", "{\"a\":\"\xff\"}", "", "UTF-8"},
		{"deep", `{"x":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, "", "deeper than 64"},
		{"deep and never closed", strings.Repeat(`{"x":`, 1<<17), "", "deeper than 64"},
		{"large", `{"x":"` + strings.Repeat("a", 1<<20) + `"}`, "", "larger than"},
		{"custom without command", `{"model_type":"Custom"}`, "command", "is required"},
		{"external without endpoints", `{"model_type":"External"}`, "endpoints", "is required"},
		{"external with serving", `{"model_type":"External","endpoints":[{"url":"http://h"}],"serving":{}}`, "serving", "sluice-runtime"},
		{"command of an ONNX model", `{"model_type":"ONNX","command":["x"]}`, "command", "must not be given"},
		{"endpoints of an ONNX model", `{"model_type":"ONNX","endpoints":[{"url":"http://h"}]}`, "endpoints", "External only"},
		{"endpoint without scheme", `{"model_type":"External","endpoints":[{"url":"h:80"}]}`, "endpoints[0].url", "starts with http://"},
		{"endpoint with user", `{"model_type":"External","endpoints":[{"url":"http://u:p@h"}]}`, "endpoints[0].url", "without user"},
		{"endpoint port", `{"model_type":"External","endpoints":[{"url":"http://h:70000"}]}`, "endpoints[0].url", "port"},
		{"endpoint header", `{"model_type":"External","endpoints":[{"url":"http://h","headers":{"a b":"x"}}]}`, `endpoints[0].headers["a b"]`, "header name"},
		{"endpoint header for length", `{"model_type":"External","endpoints":[{"url":"http://h","headers":{"content-Length":"5"}}]}`, `endpoints[0].headers.content-Length`, "sets itself"},
		{"endpoint header for coding", `{"model_type":"External","endpoints":[{"url":"http://h","headers":{"Transfer-Encoding":"chunked"}}]}`, `endpoints[0].headers.Transfer-Encoding`, "sets itself"},
		{"endpoint header for handshakes", `{"model_type":"External","endpoints":[{"url":"http://h","headers":{"Sec-WebSocket-Key":"a"}}]}`, `endpoints[0].headers.Sec-WebSocket-Key`, "sets itself"},
		{"endpoint header twice", `{"model_type":"External","endpoints":[{"url":"http://h","headers":{"A":"1","a":"2"}}]}`, "endpoints[0].headers.a", "same header"},
		{"endpoint header value", `{"model_type":"External","endpoints":[{"url":"http://h","headers":{"a":"x\r\ny: z"}}]}`, "endpoints[0].headers.a", "control"},
		{"two APIs alike", `{"apis":[{"url":"/a"},{"url":"/a","method":"post"}]}`, "apis[1]", "POST /a a second time"},
		{"API leaves the prefix", `{"apis":[{"url":"/../x"}]}`, "apis[0].url", ".."},
		{"empty program", `{"model_type":"Custom","command":[""]}`, "command[0]", "program"},
		{"working directory outside", `{"working_dir":"a/../../b"}`, "working_dir", ".."},
		{"environment name", `{"envs":{"A=B":"x"}}`, `envs["A=B"]`, "environment"},
		{"environment value", `{"envs":{"A":1}}`, "envs.A", "want a string"},
		{"EXEC without command", `{"health":{"check_method":"EXEC"}}`, "health.command", "EXEC"},
		{"port", `{"port":65536}`, "port", "0 to 65535"},
		{"big number", `{"port":1e999}`, "port", "0 to 65535"},
		{"serving of a wrong type", `{"serving":[]}`, "serving", "want an object"},
		{"future version", `{"serving":{"version":2}}`, "serving.version", "0 to 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()

			_, err := spec.ParsePackageConfig([]byte(c.doc))
			if err == nil {
				t.Fatal("accepted")
			}

			if got := paths(t, err); !reflect.DeepEqual(got, []string{c.path}) || !strings.Contains(err.Error(), c.msg) {
				t.Errorf("at %q: %v; want %q at %q", got, err, c.msg, c.path)
			}
		})
	}
}

func TestParsePackageConfigBoundsTheReport(t *testing.T) {
	t.Parallel()

	doc := `{"serving":{` + strings.TrimSuffix(strings.Repeat(`"k#":1,`, 150), ",") + `}}`
	for i := range 150 {
		doc = strings.Replace(doc, "#", string(rune('a'+i/26))+string(rune('a'+i%26)), 1)
	}

	_, err := spec.ParsePackageConfig([]byte(doc))
	if err == nil || strings.Count(err.Error(), "\n") != 100 || !strings.Contains(err.Error(), "and 50 more mistakes") {
		t.Errorf("err = %v", err)
	}
}

// FuzzParsePackageConfig: whatever is accepted can be written out and read again, to the same value.
func FuzzParsePackageConfig(f *testing.F) {
	for _, s := range servingCases(f) {
		f.Add([]byte(`{"model_type":"ONNX","serving":` + string(s.Serving) + `}`))
	}

	f.Add([]byte(`{"model_type":"Custom","command":["a"],"apis":[{"request":{"Content-type":"a"}}],"health":{"url":"/","port":"1"}}`))
	f.Add([]byte(`{"model_type":"External","endpoints":[{"url":"http://[::1]:80/x","headers":{"a":"b"}}]}`))

	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := spec.ParsePackageConfig(data)
		if err != nil {
			if len(err.Error()) > 1<<18 {
				t.Errorf("a report of %d bytes", len(err.Error()))
			}

			return
		}

		out, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}

		if c.ModelType == "" { // written as "", which is no model type
			return
		}

		again, err := spec.ParsePackageConfig(out)
		if err != nil {
			t.Fatalf("read again: %v\n%s", err, out)
		}

		second, err := json.Marshal(again)
		if err != nil || string(second) != string(out) {
			t.Errorf("second reading differs (%v)\n%s\n%s", err, out, second)
		}
	})
}

// servingCase is a serving block and what is wrong with it.
type servingCase struct {
	Name    string          `json:"name"`
	Serving json.RawMessage `json:"serving"`
	// Path of the mistake, relative to the block; empty means the block is right.
	Path string `json:"path"`
	// BeyondSchema marks mistakes that JSON Schema cannot express.
	BeyondSchema bool `json:"beyond_schema"`
}

func servingCases(tb testing.TB) []servingCase {
	tb.Helper()

	data, err := os.ReadFile("testdata/serving_cases.json")
	if err != nil {
		tb.Fatal(err)
	}

	var cases []servingCase
	if err := json.Unmarshal(data, &cases); err != nil {
		tb.Fatal(err)
	}

	if len(cases) < 50 {
		tb.Fatalf("only %d cases", len(cases))
	}

	return cases
}

func TestServingCases(t *testing.T) {
	t.Parallel()

	for _, c := range servingCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()

			_, err := spec.ParsePackageConfig([]byte(`{"model_type":"ONNX","serving":` + string(c.Serving) + `}`))

			switch {
			case c.Path == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.Path != "" && err == nil:
				t.Error("accepted")
			case c.Path != "":
				if got := paths(t, err); !slices.Contains(got, c.Path) {
					t.Errorf("mistakes at %v, want %s", got, c.Path)
				}
			}
		})
	}
}
