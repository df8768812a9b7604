package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/sluice-gateway/sluice/runtime/codec/inferencepb"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

// reloads of TestReloadsUnderLoad, unless SLUICE_RELOADS says another number.
const reloads = 40

// crowd asks a worker without a break and counts the answers that are not right: of version N, an odd N
// gives -2 for 2 and an even one gives 2.
type crowd struct {
	p     *process
	rpc   pb.GRPCInferenceServiceClient
	wg    sync.WaitGroup
	right atomic.Int64
	wrong atomic.Int64
	first atomic.Pointer[string] // what went wrong first
}

func (c *crowd) count(err error) {
	if err == nil {
		c.right.Add(1)

		return
	}

	c.wrong.Add(1)

	text := err.Error()
	c.first.CompareAndSwap(nil, &text)
}

// start lets clients of both protocols ask until ctx ends.
func (c *crowd) start(ctx context.Context, each int) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: each}}

	for range each {
		c.wg.Go(func() {
			defer client.CloseIdleConnections()

			for ctx.Err() == nil {
				_, err := c.overHTTP(client) //nolint:contextcheck // a request that was begun is seen to its end
				c.count(err)
			}
		})
		c.wg.Go(func() {
			for ctx.Err() == nil {
				c.count(c.overGRPC()) //nolint:contextcheck // the same
			}
		})
	}
}

// overHTTP makes a request that a stop of the test does not break, and gives the version that answered.
func (c *crowd) overHTTP(client *http.Client) (string, error) {
	const two = `{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[2]}]}`

	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+c.p.ready.HTTP+"/v2/models/m/infer", strings.NewReader(two))
	if err != nil {
		return "", err
	}

	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()

	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("HTTP: %w", err)
	}

	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("HTTP: %d %s", resp.StatusCode, text)
	}

	var got struct {
		Version string `json:"model_version"`
		Outputs []struct{ Data []float32 }
	}

	if err := json.Unmarshal(text, &got); err != nil {
		return "", fmt.Errorf("HTTP: %s %w", text, err)
	}

	if len(got.Outputs) != 1 || len(got.Outputs[0].Data) != 1 {
		return "", fmt.Errorf("HTTP: %s", text)
	}

	return got.Version, fits(got.Version, got.Outputs[0].Data[0])
}

func (c *crowd) overGRPC() error {
	raw := binary.LittleEndian.AppendUint32(nil, math.Float32bits(2))

	got, err := c.rpc.ModelInfer(context.Background(), &pb.ModelInferRequest{
		ModelName: "m", RawInputContents: [][]byte{raw},
		Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1, 1}}},
	})
	if err != nil {
		return fmt.Errorf("gRPC: %w", err)
	}

	if len(got.GetRawOutputContents()) != 1 || len(got.GetRawOutputContents()[0]) != 4 {
		return fmt.Errorf("gRPC: %v", got)
	}

	return fits(got.GetModelVersion(), math.Float32frombits(binary.LittleEndian.Uint32(got.GetRawOutputContents()[0])))
}

// fits tells whether a version answers so.
func fits(version string, y float32) error {
	n, err := strconv.Atoi(version)
	if err != nil {
		return fmt.Errorf("version %q answers", version)
	}

	if want := []float32{2, -2}[n%2]; y != want {
		return fmt.Errorf("version %d answers %v, want %v", n, y, want)
	}

	return nil
}

// footprint is what a process holds.
type footprint struct{ resident, threads, files int }

func (p *process) holds(t *testing.T) (f footprint) {
	t.Helper()

	proc := filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid))

	text, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		t.Fatal(err)
	}

	for line := range bytes.Lines(text) {
		name, rest, _ := bytes.Cut(line, []byte(":"))
		if n := bytes.Fields(rest); len(n) > 0 {
			switch string(name) {
			case "VmRSS":
				f.resident, _ = strconv.Atoi(string(n[0]))
			case "Threads":
				f.threads, _ = strconv.Atoi(string(n[0]))
			}
		}
	}

	files, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil || f.resident == 0 || f.threads == 0 {
		t.Fatalf("%v, %s", err, text)
	}

	f.files = len(files)

	return f
}

// release puts version n of the model "m" in place in one step, or another configuration for it.
func release(t *testing.T, dir string, n, instances int) {
	t.Helper()

	stage, final := filepath.Join(dir, "m", ".stage"), filepath.Join(dir, "m", strconv.Itoa(n))
	if err := os.MkdirAll(stage, 0o700); err != nil {
		t.Fatal(err)
	}

	config := fmt.Sprintf(`{"serving":{"max_batch_size":%d,"instances":%d}}`, 4*instances, instances)
	if err := os.WriteFile(filepath.Join(stage, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}

	if _, err := os.Stat(final); err == nil {
		if err := os.Rename(filepath.Join(stage, "config.json"), filepath.Join(final, "config.json")); err != nil {
			t.Fatal(err)
		}

		return
	}

	op := []string{"Abs", "Neg"}[n%2]
	if err := onnxgen.Unary(op, onnxgen.Float, onnxgen.Batch(1)).WriteFile(filepath.Join(stage, "model.onnx")); err != nil {
		t.Fatal(err)
	}

	if err := os.Rename(stage, final); err != nil {
		t.Fatal(err)
	}
}

// TestReloadsUnderLoad loads a model again and again while clients of both protocols ask it without a break:
// by turns a new version, which takes the place of the one before, and another configuration for the version
// that serves; the loads come over HTTP and gRPC by turns. Every request has to be answered by one version or
// the other, a load that has ended has to be seen, and the worker may not grow. It measures a process, so it
// does not run in parallel with others.
func TestReloadsUnderLoad(t *testing.T) { //nolint:paralleltest // see above
	needEngine(t)

	count, err := strconv.Atoi(cmp.Or(os.Getenv("SLUICE_RELOADS"), strconv.Itoa(reloads)))
	if err != nil || count < 20 {
		t.Fatalf("SLUICE_RELOADS: want a number of at least 20: %v", err)
	}

	dir := t.TempDir()
	release(t, dir, 1, 1)

	p := launch(t, "--repository", dir, "--version-policy", "latest:1", "--model", "m", "--grpc", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--log-level", "error")
	p.waitReady(t)

	conn, err := grpc.NewClient(p.ready.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	c := &crowd{p: p, rpc: pb.NewGRPCInferenceServiceClient(conn)}

	ctx, stop := context.WithCancel(t.Context())
	defer c.wg.Wait()
	defer stop()

	c.start(ctx, 2)

	var held []footprint

	for i := range count {
		c.reload(t, dir, i)

		held = append(held, p.holds(t))
	}

	stop()
	c.wg.Wait()

	if first := c.first.Load(); first != nil {
		t.Errorf("%d of %d requests failed, the first: %s", c.wrong.Load(), c.wrong.Load()+c.right.Load(), *first)
	}

	if c.right.Load() < int64(count) {
		t.Errorf("only %d requests were answered", c.right.Load())
	}

	steady(t, held)
	p.forgets(t)
	t.Logf("%d reloads, %d requests answered", count, c.right.Load())
}

// reload makes one change and waits until it serves.
func (c *crowd) reload(t *testing.T, dir string, i int) {
	t.Helper()

	version, instances := i/2+1, 1+i%2
	release(t, dir, version, instances)

	if err := os.RemoveAll(filepath.Join(dir, "m", strconv.Itoa(version-2))); err != nil {
		t.Fatal(err)
	}

	if i%4 < 2 {
		if status, body := c.p.post(t, "/v2/repository/models/m/load", ""); status != http.StatusOK {
			t.Fatalf("load %d: %d %s", i, status, body)
		}
	} else if _, err := c.rpc.RepositoryModelLoad(t.Context(), &pb.RepositoryModelLoadRequest{ModelName: "m"}); err != nil {
		t.Fatalf("load %d: %v", i, err)
	}

	if got, err := c.overHTTP(http.DefaultClient); err != nil || got != strconv.Itoa(version) {
		t.Fatalf("after load %d version %q answers, want %d: %v", i, got, version, err)
	}

	if _, body := c.p.get(t, "/v2/models/m/config"); !strings.Contains(body, fmt.Sprintf(`"max_batch_size":%d`, 4*instances)) {
		t.Fatalf("after load %d the configuration is %s", i, body)
	}
}

// forgets checks that of all versions that ever served only the last ones are still told of: the one that
// serves, the one before, and one whose unloading was seen at the last load.
func (p *process) forgets(t *testing.T) {
	t.Helper()

	const keeps = 3

	if list := p.index(t); len(list) > keeps {
		t.Errorf("the index still has %d versions: %v", len(list), list)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.ready.Ops+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}

	_, text := do(t, req)
	series := map[string]bool{}

	for _, m := range regexp.MustCompile(`model="m",[^}]*version="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		series[m[1]] = true
	}

	if len(series) == 0 || len(series) > keeps {
		t.Errorf("the metrics have series of %d versions: %v", len(series), series)
	}
}

// steady compares the last tenth of the reloads with the second one: the first fills caches and arenas.
func steady(t *testing.T, held []footprint) {
	t.Helper()

	tenth := max(len(held)/10, 1)
	before, after := middle(held[tenth:2*tenth]), middle(held[len(held)-tenth:])
	drift := float64(after.resident)/float64(before.resident) - 1

	t.Logf("resident %d KiB, then %d KiB (%+.1f %%); threads %d, %d; files %d, %d",
		before.resident, after.resident, 100*drift, before.threads, after.threads, before.files, after.files)

	// A short run has not met every size of batch before its first tenths end.
	allowed := 0.05
	if len(held) < 500 {
		allowed = 0.25
	}

	if drift > allowed {
		t.Errorf("the resident size grew by %.1f %% over %d reloads, from %d KiB", 100*drift, len(held), before.resident)
	}

	const slack = 8 // connections of the test, and threads that wait in the system
	if after.threads > before.threads+slack || after.files > before.files+slack {
		t.Errorf("the worker held %+v, and then %+v", before, after)
	}
}

// middle is the median of each measure.
func middle(list []footprint) footprint {
	of := func(measure func(footprint) int) int {
		var all []int
		for _, f := range list {
			all = append(all, measure(f))
		}

		slices.Sort(all)

		return all[len(all)/2]
	}

	return footprint{
		of(func(f footprint) int { return f.resident }),
		of(func(f footprint) int { return f.threads }),
		of(func(f footprint) int { return f.files }),
	}
}
