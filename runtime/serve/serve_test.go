package serve_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"image"
	"image/color"
	"image/png"
	"io"
	"mime/multipart"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/runtime/serve"
)

func newReader(s string) io.Reader { return strings.NewReader(s) }

func picture(t *testing.T, size int, v uint8) string {
	t.Helper()

	img := image.NewGray(image.Rect(0, 0, size, size))
	for i := range img.Pix {
		img.Pix[i] = v
	}

	img.SetGray(0, 0, color.Gray{Y: 255 - v})

	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}

	return b.String()
}

func form(t *testing.T, field string, files ...string) (body, contentType string) {
	t.Helper()

	var b bytes.Buffer

	w := multipart.NewWriter(&b)
	for i, f := range files {
		p, err := w.CreateFormFile(field, string(rune('a'+i))+".png")
		if err != nil {
			t.Fatal(err)
		}

		if _, err := io.WriteString(p, f); err != nil {
			t.Fatal(err)
		}
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	return b.String(), w.FormDataContentType()
}

func TestHealthFollowsTheState(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	want := func(path string, status int, part string) {
		t.Helper()

		if a := w.send(t, "GET", path, ""); a.status != status || !strings.Contains(a.body, part) {
			t.Errorf("%s: %d %s, want %d with %s", path, a.status, a.body, status, part)
		}
	}

	want("/health", 503, `{"health":"false","state":"loading"}`)
	want("/v2/health/ready", 503, `"ready":false`)
	w.state.SetFailed("no\"pe")
	want("/health", 503, `"state":"failed","reason":"no\"pe"`)
	w.state.SetReady()
	want("/health", 200, `{"health":"true"}`)
	want("/v2/health/ready", 200, `{"ready":true}`)
	w.state.SetDraining()
	w.state.SetReady()
	want("/health", 503, `"state":"draining"`)
	want("/v2/health/ready", 503, "draining")
	want("/v2/health/live", 200, `{"live":true}`)
}

func TestPredictPictures(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	dark, light := picture(t, 8, 0), picture(t, 40, 255)
	b64 := base64.StdEncoding.EncodeToString

	const lightAnswer = `{"predicted_label":"light","scores":[["light","1.000"],["dark","0.000"]]}`

	one, oneType := form(t, "images", light)
	three, threeType := form(t, "image", dark, light, light)

	for name, c := range map[string]struct{ body, kind, path, want string }{
		"one file":        {one, oneType, "/", lightAnswer},
		"declared path":   {one, oneType, "/classify", lightAnswer},
		"several files":   {three, threeType, "/", ""},
		"raw":             {light, "image/png", "/", lightAnswer},
		"json one":        {`{"image":"` + b64([]byte(light)) + `"}`, "application/json", "/", lightAnswer},
		"json list":       {`{"images":["` + b64([]byte(light)) + `"]}`, "application/json", "/", "[" + lightAnswer + "]"},
		"platform":        {`{"data":{"req_data":[{"image":"data:image/png;base64,` + b64([]byte(light)) + `"}]}}`, "application/json; charset=utf-8", "/", `{"data":{"resp_data":[` + lightAnswer + `]}}`},
		"json no type":    {`{"image":"` + b64([]byte(light)) + `"}`, "application/x-www-form-urlencoded", "/", lightAnswer},
		"by input's name": {`{"x":"` + b64([]byte(light)) + `"}`, "application/json", "/", lightAnswer},
	} {
		a := w.send(t, "POST", c.path, c.body, "Content-Type", c.kind)
		if a.status != 200 || (a.body != c.want && name != "several files") {
			t.Errorf("%s: %d %s, want %s", name, a.status, a.body, c.want)
		}

		if !json.Valid([]byte(a.body)) {
			t.Errorf("%s: not JSON: %s", name, a.body)
		}

		if name == "several files" {
			var list []struct {
				Label string `json:"predicted_label"`
			}
			if err := json.Unmarshal([]byte(a.body), &list); err != nil || len(list) != 3 ||
				list[0].Label != "dark" || list[1].Label != "light" || list[2].Label != "light" {
				t.Errorf("several files: %s", a.body)
			}
		}
	}
}

func TestPredictRefusesBadInput(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	bomb := picture(t, 101, 0)
	good := picture(t, 4, 0)
	bad, badType := form(t, "images", good, "garbage")
	many, manyType := form(t, "images", good, good, good, good, good, good)
	other, otherType := form(t, "picture", good)

	for name, c := range map[string]struct {
		method, path, body, kind string
		status                   int
		parts                    []string
	}{
		"empty":          {"POST", "/", "", "application/json", 400, []string{"ModelArts.4202"}},
		"get":            {"GET", "/", "", "", 405, []string{"Sluice.1006"}},
		"unknown path":   {"POST", "/nope", "{}", "application/json", 404, []string{"ModelArts.4204", "/nope"}},
		"type":           {"POST", "/", "<a/>", "application/xml", 415, []string{"Sluice.1005", "application/xml"}},
		"not json":       {"POST", "/", "{", "application/json", 400, []string{"ModelArts.4105"}},
		"depth":          {"POST", "/", `{"image":` + strings.Repeat("[", 200000), "application/json", 400, []string{"ModelArts.4105|ModelArts.0101"}},
		"unknown field":  {"POST", "/", `{"img":"x"}`, "application/json", 400, []string{"img", "image"}},
		"missing field":  {"POST", "/", `{}`, "application/json", 400, []string{"image"}},
		"not base64":     {"POST", "/", `{"image":"***"}`, "application/json", 400, []string{"Sluice.1002", "image"}},
		"number":         {"POST", "/", `{"image":7}`, "application/json", 400, []string{"image"}},
		"bomb":           {"POST", "/", bomb, "image/png", 413, []string{"Sluice.1003", "10201|101 x 101"}},
		"one bad file":   {"POST", "/", bad, badType, 400, []string{"Sluice.1002", "images", "b.png"}},
		"too many":       {"POST", "/", many, manyType, 400, []string{"5 images"}},
		"other field":    {"POST", "/", other, otherType, 400, []string{"picture"}},
		"cut off form":   {"POST", "/", bad[:len(bad)-20], badType, 400, []string{"form"}},
		"gif":            {"POST", "/", "GIF89a......", "image/gif", 400, []string{"GIF"}},
		"truncated":      {"POST", "/", good[:len(good)/2], "image/png", 400, []string{"Sluice.1002"}},
		"no req_data":    {"POST", "/", `{"data":{}}`, "application/json", 400, []string{"req_data"}},
		"empty req_data": {"POST", "/", `{"data":{"req_data":[]}}`, "application/json", 400, []string{"req_data"}},
		"req_data item":  {"POST", "/", `{"data":{"req_data":[{"foo":1}]}}`, "application/json", 400, []string{"req_data[0]", "foo"}},
	} {
		a := w.send(t, c.method, c.path, c.body, "Content-Type", c.kind)
		if a.status != c.status {
			t.Errorf("%s: status %d, want %d: %s", name, a.status, c.status, a.body)
		}

		var e struct{ Code, Msg string }
		if err := json.Unmarshal([]byte(strings.NewReplacer("error_code", "Code", "error_msg", "Msg").Replace(a.body)), &e); err != nil || e.Code == "" || e.Msg == "" {
			t.Errorf("%s: error body %s", name, a.body)
		}

		for _, p := range c.parts {
			found := false
			for alt := range strings.SplitSeq(p, "|") {
				found = found || strings.Contains(a.body, alt)
			}

			if !found {
				t.Errorf("%s: %s does not tell %q", name, a.body, p)
			}
		}

		if c.status == 405 && a.header.Get("Allow") != "POST" {
			t.Errorf("%s: Allow %q", name, a.header.Get("Allow"))
		}
	}
}

func TestV2InferJSON(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	body := `{"id":"a\"b","inputs":[
	  {"name":"INPUT1","shape":[2,4],"datatype":"INT32","data":[[1,2,3,4],[5,6,7,8]]},
	  {"data":[-1,-2,-3,-4,5,6,7,2147483647],"datatype":"INT32","shape":[2,4],"name":"INPUT0"}]}`

	a := w.send(t, "POST", "/v2/models/pair/infer", body, "X-Sluice-Explain", "1", "X-Sluice-Timeout-Ms", "5000")

	const want = `{"id":"a\"b","model_name":"pair","model_version":"1","outputs":[` +
		`{"name":"OUT_INPUT0","datatype":"INT32","shape":[2,4],"data":[-1,-2,-3,-4,5,6,7,2147483647]},` +
		`{"name":"OUT_INPUT1","datatype":"INT32","shape":[2,4],"data":[1,2,3,4,5,6,7,8]}]}`
	if a.status != 200 || a.body != want {
		t.Fatalf("%d %s", a.status, a.body)
	}

	if h := a.header.Get("X-Sluice-Batch"); !strings.HasPrefix(h, "size=8;requests=3;reason=full;queue_us=1000;") {
		t.Errorf("X-Sluice-Batch: %q", h)
	}

	if r := w.models.models["pair"].last.Load(); r.Rows != 2 || r.Deadline.IsZero() {
		t.Errorf("request %+v", r)
	}
}
