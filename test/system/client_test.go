package system_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	sluiceclient "github.com/sluice-gateway/sluice/client"
)

// TestDirectExamples runs the examples of docs/examples/direct.
func TestDirectExamples(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	model, _ := s.model("digits", "1.0.0", digitsDir(t))
	id := s.deploy("examples", model, 1, map[string]any{"direct_channel": map[string]any{"enabled": true, "key": directKey}})
	s.waitStatus(id, "running", 30*time.Second)
	s.endpoints(id, 1)

	dir := filepath.Join(repoRoot(t), "docs/examples/direct")
	picture := filepath.Join(digitsDir(t), "samples/4.png")
	args := []string{s.Control, s.Boot.ProjectID, id, s.token, directKey, picture}

	run := func(name string, arg ...string) {
		t.Helper()

		if _, err := exec.LookPath(name); err != nil {
			t.Logf("%s is not on this machine", name)

			return
		}

		out, err := exec.CommandContext(t.Context(), name, arg...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"predicted_label":"4"`) {
			t.Errorf("%s %s: %v\n%s", name, arg[0], err, out)
		}
	}

	run("python3", append([]string{filepath.Join(dir, "direct.py")}, args...)...)
	run("node", append([]string{filepath.Join(dir, "direct.mjs")}, args...)...)

	if _, err := exec.LookPath("curl"); err == nil {
		run("sh", append([]string{filepath.Join(dir, "direct.sh")}, args...)...)
	}

	program := build(t, "docs/examples/direct")
	run(program, "-control", s.Control, "-project", s.Boot.ProjectID, "-service", id, "-token", s.token, "-key", directKey, picture)
	run(program, "-edge", s.Edge, "-service", id, "-token", s.token, picture)
}

// TestClientOutlivesInstances calls by the Go package while instances are killed and replaced.
func TestClientOutlivesInstances(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	model, _ := s.model("digits", "1.0.0", digitsDir(t))
	id := s.deploy("lives", model, 2, map[string]any{"direct_channel": map[string]any{"enabled": true, "key": directKey}})
	s.waitStatus(id, "running", 30*time.Second)

	meta := s.call("GET", s.Edge+"/v1/infers/"+id+"/v2/models/digits", nil).json(t)

	inputs, _ := meta["inputs"].([]any)
	input, _ := inputs[0].(map[string]any)
	name, _ := input["name"].(string)
	shape, size := concrete(input["shape"])
	in := &sluiceclient.InferRequest{Inputs: []sluiceclient.Tensor{sluiceclient.Float32s(name, shape, make([]float32, size))}}

	c, err := sluiceclient.New(sluiceclient.Config{Control: s.Control, Project: s.Boot.ProjectID, Service: id, Token: s.token, DirectKey: directKey})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	e, err := sluiceclient.New(sluiceclient.Config{
		Through: sluiceclient.Edge, Edge: s.Edge, Service: id, AccessKey: s.Boot.AccessKey, SecretKey: s.Boot.SecretKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()

	// The same call both ways, in both forms, gives the same.
	var want []float32

	for _, way := range []*sluiceclient.Client{c, e} {
		for _, asJSON := range []bool{false, true} {
			in.JSON = asJSON

			out, err := way.Infer(t.Context(), "digits", in)
			if err != nil || len(out.Outputs) == 0 {
				t.Fatalf("infer: %v", err)
			}

			got, err := out.Outputs[0].Float32s()
			if err != nil || want != nil && (len(got) != len(want) || got[0] != want[0]) {
				t.Fatalf("infer: %v %v, want %v", err, got, want)
			}

			want = got
		}
	}

	in.JSON = false
	s.underFire(t, c, in)
}

// concrete makes a shape with one row, and tells how many values it has.
func concrete(v any) (shape []int64, size int) {
	size = 1
	dims, _ := v.([]any)

	for _, d := range dims {
		f, _ := d.(float64)
		n := max(int64(f), 1)
		shape = append(shape, n)
		size *= int(n)
	}

	return shape, size
}

// underFire kills one of two workers while calls are made.
func (s *sluice) underFire(t *testing.T, c *sluiceclient.Client, in *sluiceclient.InferRequest) {
	t.Helper()

	var (
		served, failed atomic.Int64
		wg             sync.WaitGroup
	)

	ctx, stop := context.WithCancel(t.Context())

	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.Infer(context.WithoutCancel(ctx), "digits", in); err != nil {
					failed.Add(1)
					t.Errorf("infer: %v", err)

					return
				}

				served.Add(1)
			}
		})
	}

	s.eventually(20*time.Second, "load", func() bool { return served.Load() > 50 || failed.Load() > 0 })

	if workers := s.workers(); len(workers) == 2 {
		syscall.Kill(workers[0], syscall.SIGKILL)
	} else {
		t.Errorf("workers %v", workers)
	}

	at := served.Load()
	s.eventually(30*time.Second, "load after the kill", func() bool { return served.Load() > at+200 || failed.Load() > 0 })
	stop()
	wg.Wait()
}
