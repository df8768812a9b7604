package runner_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/control/health"
	"github.com/sluice-gateway/sluice/control/launch"
	"github.com/sluice-gateway/sluice/control/rollout"
	"github.com/sluice-gateway/sluice/control/rollout/runner"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/spec"
)

const patience = 30 * time.Second

// control is one control process: a runner with its launcher.
type control struct {
	t        *testing.T
	store    *store.Store
	launcher *launch.Local
	runner   *runner.Runner
	cancel   context.CancelFunc
	done     chan error
}

// newControl builds a control process that is not running yet.
func newControl(t *testing.T, st *store.Store, node string) *control {
	t.Helper()

	log := slog.New(slog.DiscardHandler)

	l, err := launch.NewLocal(launch.Config{Runtime: os.Args[0], Env: []string{helperEnv + "=worker"}}, log)
	if err != nil {
		t.Fatal(err)
	}

	prober := health.New(nil)
	cfg := runner.Config{
		Node:       node,
		DrainDelay: time.Millisecond,
		Policy:     rollout.Policy{MinBackoff: 10 * time.Millisecond, MaxBackoff: time.Second},
	}

	r, err := runner.New(cfg, st, l, prober, log)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(prober.Close)

	return &control{t: t, store: st, launcher: l, runner: r, done: make(chan error, 1)}
}

func startControl(t *testing.T, st *store.Store) *control {
	t.Helper()

	ctx, cancel := context.WithCancel(t.Context())
	c := newControl(t, st, "node")
	c.cancel = cancel

	go func() { c.done <- c.runner.Run(ctx) }()

	t.Cleanup(c.stop)

	return c
}

// stop ends the runner and kills its processes, as a crash would.
func (c *control) stop() {
	c.cancel()

	if err := <-c.done; err != nil {
		c.t.Error(err)
	}

	c.done <- nil // for a second stop
	_ = c.launcher.Close()
}

func addModel(t *testing.T, st *store.Store, id, mode string) {
	t.Helper()

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mode"), []byte(mode), 0o600); err != nil {
		t.Fatal(err)
	}

	m := spec.Model{
		ID: id, Name: id, Version: "1.0.0", Package: spec.PackageRef{Dir: dir},
		Config: spec.PackageConfig{ModelType: "ONNX"}, Status: spec.ModelPublished,
	}
	if err := st.Models.Create(t.Context(), id, m); err != nil {
		t.Fatal(err)
	}
}

func entry(model string, n int) spec.Entry {
	return spec.Entry{
		ModelID: model, ModelName: model, ModelVersion: "1.0.0", Weight: 100,
		InstanceCount: n, MaxSurge: 1, TerminationGraceSeconds: 30,
	}
}

func addService(t *testing.T, st *store.Store, id string, entries ...spec.Entry) {
	t.Helper()

	svc := spec.Service{ID: id, Name: id, ProjectID: "p", Entries: entries, Generation: 1}
	if err := st.Services.Create(t.Context(), id, svc); err != nil {
		t.Fatal(err)
	}
}

// update changes service s as a user would.
func update(t *testing.T, st *store.Store, change func(*spec.Service)) {
	t.Helper()

	_, err := st.Services.Update(t.Context(), "s", func(s *spec.Service) error {
		change(s)
		s.Generation++

		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// await returns the state of the service once ok accepts it and its instances.
func await(t *testing.T, st *store.Store, id, what string, ok func(spec.ServiceState, []spec.Instance) bool) []spec.Instance {
	t.Helper()

	changed := st.Changed(t.Context(), store.KindServiceStates, store.KindInstances)
	timeout := time.After(patience)

	var (
		state store.Item[spec.ServiceState]
		list  []spec.Instance
	)

	for {
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%s: never: state %+v, instances %+v", what, state.Value, list)
		}

		state, _ = st.ServiceStates.Get(t.Context(), id)

		items, _, err := st.Instances.ListPrefix(t.Context(), id+"/")
		if err != nil {
			t.Fatal(err)
		}

		list = list[:0]
		for _, item := range items {
			list = append(list, item.Value)
		}

		if ok(state.Value, list) {
			return list
		}
	}
}

func running(n int) func(spec.ServiceState, []spec.Instance) bool {
	return func(st spec.ServiceState, list []spec.Instance) bool {
		return st.Status == spec.ServiceRunning && len(list) == n && readyCount(list) == n
	}
}

func readyCount(list []spec.Instance) int {
	n := 0

	for _, inst := range list {
		if inst.State == spec.InstanceReady {
			n++
		}
	}

	return n
}

// awaitEvents returns the events of a service once all of want are among them.
func awaitEvents(t *testing.T, st *store.Store, id string, want ...string) string {
	t.Helper()

	changed := st.Changed(t.Context(), store.KindEvents)
	timeout := time.After(patience)

	var b strings.Builder

	for {
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("not all of %q among the events:\n%s", want, b.String())
		}

		items, err := st.Events.List(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}

		b.Reset()

		for _, item := range items {
			b.WriteString(item.Value.Type + " " + item.Value.Info + "\n")
		}

		missing := slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(b.String(), w) })
		if !missing {
			return b.String()
		}
	}
}

func TestServiceLivesFromDeploymentToDeletion(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	addModel(t, st, "m", "")
	addService(t, st, "s", entry("m", 2))

	c := startControl(t, st)
	list := await(t, st, "s", "deployed", running(2))

	// A killed worker is replaced.
	if err := syscall.Kill(list[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}

	await(t, st, "s", "replaced", func(state spec.ServiceState, now []spec.Instance) bool {
		return running(2)(state, now) && now[0].PID != list[0].PID && now[1].PID != list[0].PID
	})

	awaitEvents(t, st, "s", "abnormal [m 1.0.0] instance s-", "SIGKILL")

	update(t, st, func(s *spec.Service) { s.Entries[0].InstanceCount = 3 })
	await(t, st, "s", "scaled up", running(3))
	update(t, st, func(s *spec.Service) { s.Entries[0].InstanceCount = 1 })
	await(t, st, "s", "scaled down", running(1))

	update(t, st, func(s *spec.Service) { s.Stopped = true })
	await(t, st, "s", "stopped", func(state spec.ServiceState, now []spec.Instance) bool {
		return state.Status == spec.ServiceStopped && len(now) == 0
	})

	if n := c.launcher.Count(); n != 0 {
		t.Errorf("%d processes of a stopped service", n)
	}

	update(t, st, func(s *spec.Service) { s.Stopped = false })
	await(t, st, "s", "started", running(1))

	update(t, st, func(s *spec.Service) { s.Deleting = true })
	await(t, st, "s", "deleted", func(state spec.ServiceState, now []spec.Instance) bool {
		_, err := st.Services.Get(t.Context(), "s")

		return state.ServiceID == "" && len(now) == 0 && err != nil
	})
}

func TestRestartedControlServesAgain(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	addModel(t, st, "m", "")
	addService(t, st, "s", entry("m", 2))

	c := startControl(t, st)
	before := await(t, st, "s", "deployed", running(2))
	c.stop()

	begin := time.Now()

	startControl(t, st)
	await(t, st, "s", "serving again", func(state spec.ServiceState, now []spec.Instance) bool {
		return running(2)(state, now) && now[0].ID != before[0].ID && now[1].ID != before[1].ID
	})

	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("took %s", d)
	}
}

func TestUpgradeReplacesEveryInstance(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	addModel(t, st, "m1", "")
	addModel(t, st, "m2", "")
	addService(t, st, "s", entry("m1", 3))
	startControl(t, st)
	await(t, st, "s", "deployed", running(3))

	update(t, st, func(s *spec.Service) { s.Entries = []spec.Entry{entry("m2", 3)} })
	list := await(t, st, "s", "upgraded", func(state spec.ServiceState, now []spec.Instance) bool {
		return running(3)(state, now) && state.Upgrade == nil && state.Generation == 2
	})

	for _, inst := range list {
		if inst.ModelID != "m2" {
			t.Errorf("instance %+v", inst)
		}
	}

	logs, err := st.UpdateLogs.List(t.Context(), "s")
	if err != nil || len(logs) != 1 || logs[0].Value.Result != spec.UpdateSuccess || logs[0].Value.SuccessNum != 3 {
		t.Errorf("update logs %+v, %v", logs, err)
	}
}

func TestUpgradeToABrokenModelRollsBack(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	addModel(t, st, "good", "")
	addModel(t, st, "bad", "broken")
	addService(t, st, "s", entry("good", 2))
	startControl(t, st)
	await(t, st, "s", "deployed", running(2))

	update(t, st, func(s *spec.Service) { s.Entries = []spec.Entry{entry("bad", 2)} })
	await(t, st, "s", "rolled back", func(state spec.ServiceState, now []spec.Instance) bool {
		svc, err := st.Services.Get(t.Context(), "s")

		return err == nil && svc.Value.Entries[0].ModelID == "good" && svc.Value.Generation == 3 &&
			state.Upgrade == nil && running(2)(state, now)
	})

	texts := awaitEvents(t, st, "s",
		"Perform a rollback. Error: [bad 1.0.0] model.onnx is no model", "update failed, rolled back")
	if strings.Contains(texts, "[good 1.0.0] instance s-1 is being stopped") {
		t.Error("the old version was touched")
	}
}

func TestModelThatCannotLoadFailsItsServiceOnly(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	addModel(t, st, "good", "")
	addModel(t, st, "bad", "broken")
	addService(t, st, "s1", entry("bad", 1))
	addService(t, st, "s2", entry("good", 1))
	startControl(t, st)

	await(t, st, "s1", "failed", func(state spec.ServiceState, _ []spec.Instance) bool {
		return state.Status == spec.ServiceFailed && strings.Contains(state.ErrorMsg, "model.onnx is no model")
	})
	await(t, st, "s2", "running", running(1))
}

func TestInstanceThatHangsIsReplaced(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	addModel(t, st, "m", "")

	_, err := st.Models.Update(t.Context(), "m", func(m *spec.Model) error {
		m.Config.Health = &spec.Health{TimeoutSeconds: 1, FailureThreshold: 1}

		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	addService(t, st, "s", entry("m", 2))
	startControl(t, st)

	list := await(t, st, "s", "deployed", running(2))

	if err := syscall.Kill(list[0].PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}

	await(t, st, "s", "replaced", func(state spec.ServiceState, now []spec.Instance) bool {
		return running(2)(state, now) && now[0].PID == list[1].PID && now[1].Restarts == 1
	})
	awaitEvents(t, st, "s", "it does not answer any more: no answer to a probe within 1s")

	if err := syscall.Kill(list[0].PID, 0); err == nil {
		t.Error("the process that hung is still there")
	}
}

func TestExternalEngineIsProbedAndReplacedByNobodyElse(t *testing.T) {
	t.Parallel()

	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	first, second := httptest.NewServer(handler), httptest.NewServer(handler)

	t.Cleanup(first.Close)
	t.Cleanup(second.Close)

	st := storetest.New(t)
	model := spec.Model{ID: "m", Name: "m", Version: "1.0.0", Config: spec.PackageConfig{
		ModelType: "External", Endpoints: []spec.Endpoint{{URL: first.URL, Weight: 3}, {URL: second.URL}},
		Health: &spec.Health{URL: "/", PeriodSeconds: 1, FailureThreshold: 1},
	}}

	if err := st.Models.Create(t.Context(), "m", model); err != nil {
		t.Fatal(err)
	}

	addService(t, st, "s", entry("m", 1)) // the endpoints count, not this
	c := startControl(t, st)

	list := await(t, st, "s", "attached", running(2))
	if e := list[0].Endpoint; e == nil || e.URL != first.URL || e.Weight != 3 || "http://"+list[0].Address != first.URL {
		t.Errorf("instance %+v, endpoint %+v", list[0], e)
	}

	second.CloseClientConnections()
	second.Close()
	await(t, st, "s", "one away", func(state spec.ServiceState, now []spec.Instance) bool {
		return state.Status == spec.ServiceConcerning && readyCount(now) == 1
	})

	if n := c.launcher.Count(); n != 0 {
		t.Errorf("%d processes", n)
	}

	update(t, st, func(s *spec.Service) { s.Stopped = true })
	await(t, st, "s", "stopped", func(state spec.ServiceState, now []spec.Instance) bool {
		return state.Status == spec.ServiceStopped && len(now) == 0
	})
}

func TestServiceWhoseDocumentVanishesLeavesNothing(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	addModel(t, st, "m", "")
	addService(t, st, "s", entry("m", 1))
	c := startControl(t, st)
	await(t, st, "s", "deployed", running(1))

	if err := st.Services.Delete(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}

	await(t, st, "s", "gone", func(state spec.ServiceState, now []spec.Instance) bool {
		return state.ServiceID == "" && len(now) == 0
	})

	if n := c.launcher.Count(); n != 0 {
		t.Errorf("%d processes", n)
	}
}
