package command_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/loadtest/command"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call runs the command and returns what it writes.
func call(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()

	return callWith(t.Context(), args...)
}

func callWith(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer

	cmd := command.New("test") //nolint:contextcheck // cobra hands the context over in ExecuteContext
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetIn(strings.NewReader("from standard input"))
	err = cmd.ExecuteContext(ctx)

	return out.String(), errs.String(), err
}

func server(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()

	s := httptest.NewServer(h)
	t.Cleanup(s.Close)

	return s
}

// document is what scripts read from --json.
type document struct {
	Target    string             `json:"target"`
	Command   []string           `json:"command"`
	Loop      string             `json:"loop"`
	Requests  int64              `json:"requests"`
	Succeeded int64              `json:"succeeded"`
	Failed    int64              `json:"failed"`
	Rate      float64            `json:"rate"`
	Latency   map[string]float64 `json:"latency_ms"`
	First     map[string]float64 `json:"first_byte_ms"`
	Between   map[string]float64 `json:"between_events_ms"`
	Errors    []struct {
		Error  string `json:"error"`
		Status int    `json:"status"`
		Code   string `json:"error_code"`
		Count  int64  `json:"count"`
	} `json:"errors"`
	Targets []struct {
		Name     string `json:"name"`
		Requests int64  `json:"requests"`
	} `json:"targets"`
	Timeline []map[string]float64 `json:"timeline"`
	SLO      *struct {
		Met bool `json:"met"`
	} `json:"slo"`
	Server *struct {
		Queue int64   `json:"queue_ns"`
		Infer int64   `json:"compute_infer_ns"`
		Batch float64 `json:"average_batch"`
	} `json:"server"`
	Levels []struct {
		Concurrency int     `json:"concurrency"`
		Asked       float64 `json:"requested_rate"`
		Requests    int64   `json:"requests"`
	} `json:"levels"`
	Search *struct {
		Rate   float64 `json:"highest_rate"`
		Trials []struct {
			Met bool `json:"met"`
		} `json:"trials"`
	} `json:"search"`
	Comparison *struct {
		Rounds int `json:"rounds"`
		Ratios []struct {
			Metric string  `json:"metric"`
			Ratio  float64 `json:"ratio_b_to_a"`
			Better string  `json:"better"`
		} `json:"ratios"`
	} `json:"comparison"`
	Interrupted bool `json:"interrupted"`
}

// measure runs the command with --json - and reads what it says.
func measure(t *testing.T, args ...string) document {
	t.Helper()

	out, stderr, err := call(t, append(args, "--json", "-", "-q")...)
	if err != nil && !errors.Is(err, command.ErrMissed) {
		t.Fatalf("%v\n%s", err, stderr)
	}

	var d document
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatalf("%v in %s", err, out)
	}

	return d
}

func TestReportAgreesWithTheServer(t *testing.T) {
	t.Parallel()

	var good, bad atomic.Int64

	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPut || r.URL.RequestURI() != "/a/b?c=d" || string(body) != `{"x":1}` || r.Header.Get("X-One") != "1" ||
			r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Auth-Token") != "token-of-mine" {
			w.WriteHeader(http.StatusTeapot)

			return
		}

		if (good.Load()+bad.Load())%4 == 3 {
			bad.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"error_code":"ModelArts.4503","error_msg":"busy"}`)

			return
		}

		good.Add(1)
	})

	d := measure(t, "--url", s.URL+"/a/b?c=d", "--method", "PUT", "--body", `{"x":1}`, "-H", "X-One: 1",
		"--auth", "token", "--token", "token-of-mine", "--concurrency", "1", "-n", "400", "--no-preflight")

	if d.Requests != 400 || d.Succeeded != good.Load() || d.Failed != bad.Load() || d.Failed != 100 {
		t.Errorf("%d requests, %d and %d; the server counts %d and %d", d.Requests, d.Succeeded, d.Failed, good.Load(), bad.Load())
	}

	if len(d.Errors) != 1 || d.Errors[0].Code != "ModelArts.4503" || d.Errors[0].Count != 100 || d.Errors[0].Status != 503 {
		t.Errorf("errors %+v", d.Errors)
	}

	if d.Latency["count"] != 400 || d.Latency["p50"] <= 0 || d.Latency["p99"] < d.Latency["p50"] || d.Latency["max"] < d.Latency["p99"] {
		t.Errorf("latency %v", d.Latency)
	}

	for _, a := range d.Command {
		if strings.Contains(a, "token-of-mine") {
			t.Errorf("the report shows a token: %q", d.Command)
		}
	}
}

// TestPercentilesAreThoseOfTheServer injects latencies that are large against all else: one request in ten
// takes 120 ms, the others 60 ms.
func TestPercentilesAreThoseOfTheServer(t *testing.T) {
	t.Parallel()

	var n atomic.Int64

	s := server(t, func(http.ResponseWriter, *http.Request) {
		d := 60 * time.Millisecond
		if n.Add(1)%10 == 0 {
			d *= 2
		}

		<-time.After(d)
	})

	d := measure(t, "--url", s.URL, "--rate", "200", "--shape", "constant", "-d", "2s", "--no-preflight")
	if d.Requests != 400 || d.Failed != 0 || d.Loop != "open" || math.Abs(d.Rate-200) > 10 {
		t.Errorf("%d requests at %v, %d failed", d.Requests, d.Rate, d.Failed)
	}

	for name, want := range map[string]float64{"p50": 60, "p75": 60, "p95": 120, "p99": 120} {
		// Timers and a busy machine add to what was injected, and take nothing away.
		if got := d.Latency[name]; got < want*0.99 || got > want+45 {
			t.Errorf("%s is %v ms, want %v", name, got, want)
		}
	}
}

func TestExitByTheSLO(t *testing.T) {
	t.Parallel()

	s := server(t, func(http.ResponseWriter, *http.Request) { <-time.After(5 * time.Millisecond) })

	if _, stderr, err := call(t, "--url", s.URL, "-d", "200ms", "--slo", "p99=10s,error=0%", "-q"); err != nil {
		t.Errorf("%v %s", err, stderr)
	}

	out, _, err := call(t, "--url", s.URL, "-d", "200ms", "--slo", "p50=1ms", "-q")
	if !errors.Is(err, command.ErrMissed) || !strings.Contains(out, "slo p50=1ms") || !strings.Contains(out, "MISSED") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestFilesOfReports(t *testing.T) {
	t.Parallel()

	s := server(t, func(http.ResponseWriter, *http.Request) {})
	dir := t.TempDir()
	name := func(n string) string { return filepath.Join(dir, n) }

	out, stderr, err := call(t, "--url", s.URL+"/?<script>alert(1)</script>", "-d", "300ms", "--warmup", "100ms", "--sweep", "1,2,4",
		"--json", name("a.json"), "--html", name("a.html"), "--csv", name("a.csv"))
	if err != nil {
		t.Fatal(err)
	}

	if !strings.Contains(out, "level") || !strings.Contains(stderr, "/s") {
		t.Errorf("table %q, progress %q", out, stderr)
	}

	csv := read(t, name("a.csv"))
	if lines := strings.Split(strings.TrimSpace(csv), "\n"); len(lines) != 4 || lines[0] != "Concurrency,Inferences/Second,Client Send,"+
		"Network+Server Send/Recv,Server Queue,Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,"+
		"p50 latency,p90 latency,p95 latency,p99 latency" || !strings.HasPrefix(lines[3], "4,") {
		t.Errorf("CSV %q", csv)
	}

	var d document
	if err := json.Unmarshal([]byte(read(t, name("a.json"))), &d); err != nil || len(d.Levels) != 3 || d.Levels[2].Concurrency != 4 {
		t.Errorf("%v: %+v", err, d.Levels)
	}

	page := read(t, name("a.html"))
	if strings.Contains(page, "<script") || strings.Contains(page, "src=") || strings.Contains(page, "href=") {
		t.Error("the page holds a script or loads something")
	}

	if n := strings.Count(page, "<svg"); n < 3 {
		t.Errorf("%d plots", n)
	}

	for rest := page; ; {
		_, after, ok := strings.Cut(rest, "<svg")
		if !ok {
			break
		}

		svg, tail, _ := strings.Cut(after, "</svg>")
		if err := xml.Unmarshal([]byte("<svg"+svg+"</svg>"), new(struct{})); err != nil {
			t.Errorf("plot: %v", err)
		}

		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Error("a plot has coordinates that are no numbers")
		}

		rest = tail
	}
}

func read(t *testing.T, name string) string {
	t.Helper()

	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}

	return string(data)
}

func TestRefusedBeforeAnyLoad(t *testing.T) {
	t.Parallel()

	var n atomic.Int64

	s := server(t, func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"error_code":"APIG.0301","error_msg":"Incorrect IAM authentication information"}`)
	})
	file := filepath.Join(t.TempDir(), "out.json")

	_, _, err := call(t, "--url", s.URL, "--auth", "token", "--token", "bad", "-d", "1s", "--json", file)
	if err == nil || !strings.Contains(err.Error(), "refuses the credentials: HTTP 401 APIG.0301") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}

	if n.Load() != 1 {
		t.Errorf("%d requests were sent", n.Load())
	}

	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file without a report: %v", err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()

	var elsewhere atomic.Int64

	other := server(t, func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusMovedPermanently)
	})

	d := measure(t, "--url", s.URL, "-n", "20")
	if elsewhere.Load() != 0 || d.Failed != 20 || d.Errors[0].Status != 301 {
		t.Errorf("%d requests elsewhere, %+v", elsewhere.Load(), d.Errors)
	}
}

func TestSearchAndItsExit(t *testing.T) {
	t.Parallel()

	// One request at a time, 5 ms each: 200 a second.
	gate := make(chan struct{}, 1)
	s := server(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case gate <- struct{}{}:
			<-time.After(5 * time.Millisecond)
			<-gate
		case <-r.Context().Done():
		}
	})

	d := measure(t, "--url", s.URL, "--search", "20:2000", "--slo", "p90=150ms", "-d", "1s", "--timeout", "1s", "--concurrency", "300")
	if d.Search == nil || d.Search.Rate < 60 || d.Search.Rate > 260 || !d.SLO.Met {
		t.Errorf("%+v", d.Search)
	}

	if _, _, err := call(t, "--url", s.URL, "--search", "500:1000", "--slo", "p50=1us", "-d", "100ms", "--timeout", "200ms", "-q"); !errors.Is(err, command.ErrMissed) {
		t.Errorf("nothing holds: %v", err)
	}
}

func TestComparisonOfTwoTargets(t *testing.T) {
	t.Parallel()

	quick := server(t, func(http.ResponseWriter, *http.Request) { <-time.After(2 * time.Millisecond) })
	slow := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/same/path" {
			w.WriteHeader(http.StatusNotFound)
		}

		<-time.After(8 * time.Millisecond)
	})

	d := measure(t, "--url", quick.URL+"/same/path", "--compare", slow.URL, "-d", "800ms", "--rounds", "4", "-c", "2")
	if d.Comparison == nil || d.Comparison.Rounds != 4 || d.Failed != 0 {
		t.Fatalf("%+v", d)
	}

	for _, r := range d.Comparison.Ratios {
		if r.Metric == "p50" && (r.Ratio < 1.5 || r.Better != "A") {
			t.Errorf("%+v", r)
		}
	}
}

func TestStreamsAndSockets(t *testing.T) {
	t.Parallel()

	up := websocket.Upgrader{}
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sse" {
			w.Header().Set("Content-Type", "text/event-stream")

			for i := range 5 {
				<-time.After(10 * time.Millisecond)
				fmt.Fprintf(w, "data: %d\n\n", i)
				http.NewResponseController(w).Flush()
			}

			return
		}

		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()

		for {
			kind, m, err := ws.ReadMessage()
			if err != nil {
				return
			}

			if ws.WriteMessage(kind, m) != nil {
				return
			}
		}
	})

	d := measure(t, "--url", s.URL+"/sse", "--stream", "-n", "10", "-c", "2")
	if d.Failed != 0 || d.First["min"] < 10 || d.Between["count"] != 40 || d.Between["p50"] < 9 || d.Latency["min"] < 50 {
		t.Errorf("first %v, between %v, whole %v", d.First, d.Between, d.Latency)
	}

	d = measure(t, "--url", "ws"+strings.TrimPrefix(s.URL, "http")+"/ws", "--body", `{"n":{{.Seq}}}`, "--in-flight", "8", "-n", "500")
	if d.Failed != 0 || d.Requests != 500 {
		t.Errorf("%+v", d)
	}

	if _, _, err := call(t, "--url", "ws"+strings.TrimPrefix(s.URL, "http")+"/sse", "-n", "1"); err == nil || !strings.Contains(err.Error(), "is no WebSocket: HTTP 200") {
		t.Errorf("%v", err)
	}
}

// v2Server serves metadata and statistics of one model.
func v2Server(t *testing.T) *httptest.Server {
	t.Helper()

	var n atomic.Int64

	return server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/models/stats":
			fmt.Fprintf(w, `{"model_stats":[{"name":"m","inference_count":%d,"execution_count":%d,"inference_stats":{"queue":{"count":1,"ns":%d},"compute_infer":{"count":1,"ns":%d}}}]}`,
				2*n.Load(), n.Load(), 2*n.Load()*1000, 2*n.Load()*5000)
		case "/v2/models/m":
			io.WriteString(w, `{"name":"m","inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}]}`)
		case "/v2/models/m/infer":
			body, _ := io.ReadAll(r.Body)

			header := r.Header.Get("Inference-Header-Content-Length")
			if header == "" && !json.Valid(body) || header != "" && !json.Valid(body[:len(body)-3*4*4]) {
				w.WriteHeader(http.StatusBadRequest)
			}

			n.Add(1)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
}

func TestInferencesAndTheServersShare(t *testing.T) {
	t.Parallel()

	s := v2Server(t)

	for _, kind := range []string{"json", "binary"} {
		d := measure(t, "--url", s.URL, "--v2", kind, "--v2-batch", "3", "-n", "50")
		if d.Failed != 0 || d.Server == nil || d.Server.Queue != 1000 || d.Server.Infer != 5000 || d.Server.Batch != 2 {
			t.Errorf("%s: %+v, server %+v", kind, d, d.Server)
		}
	}
}

func TestBodiesFromElsewhere(t *testing.T) {
	t.Parallel()

	got := make(chan string, 100)
	s := server(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.Header.Get("Content-Type") + " " + string(body)
	})

	name := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(name, []byte(`{"seq":"{{.Seq}}"}`), 0o600); err != nil {
		t.Fatal(err)
	}

	for want, args := range map[string][]string{
		"text/plain; charset=utf-8 from standard input": {"--body", "@-"},
		`application/json {"seq":"0"}`:                  {"--body", "@" + name},
		`application/json {"seq":"{{.Seq}}"}`:           {"--body", "@" + name, "--no-template"},
		"x/y z":                                         {"--body", "z", "--content-type", "x/y"},
		"a/b z":                                         {"--body", "z", "-H", "content-type: a/b"},
	} {
		measure(t, append(args, "--url", s.URL, "-n", "1", "--no-preflight")...)

		if text := <-got; text != want {
			t.Errorf("%v: %q, want %q", args, text, want)
		}
	}
}

func TestInterruptLeavesAReport(t *testing.T) {
	t.Parallel()

	s := server(t, func(http.ResponseWriter, *http.Request) { <-time.After(time.Millisecond) })

	for _, args := range [][]string{{}, {"--rate", "100"}, {"--sweep", "1,2"}, {"--search", "50:1000", "--slo", "p99=10s"}, {"--compare", s.URL}} {
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		out, stderr, err := callWith(ctx, append(args, "--url", s.URL, "-d", "1h", "--json", "-", "-q")...)

		cancel()

		var d document
		if uerr := json.Unmarshal([]byte(out), &d); uerr != nil {
			t.Errorf("%v: no report: %v %v %s", args, uerr, err, stderr)
		} else if args != nil && d.Requests == 0 && d.Search == nil {
			t.Errorf("%v: nothing was measured", args)
		}
	}
}
