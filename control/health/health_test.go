package health_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/control/health"
	"github.com/sluice-gateway/sluice/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// engine answers probes with what it was told last.
type engine struct {
	server *httptest.Server
	answer atomic.Value // string: "STATUS BODY", or "hang"
	path   atomic.Value
	probes atomic.Int64
	conns  atomic.Int64
	free   chan struct{} // closed at the end: hanging handlers return
}

func newEngine(t *testing.T, answer string) *engine {
	t.Helper()

	e := &engine{free: make(chan struct{})}
	e.answer.Store(answer)

	e.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.probes.Add(1)
		e.path.Store(r.URL.String())

		text, _ := e.answer.Load().(string)
		if text == "hang" {
			<-e.free

			return
		}

		var status int

		code, body, _ := strings.Cut(text, " ")
		_, _ = fmt.Sscan(code, &status)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	e.server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			e.conns.Add(1)
		}
	}
	e.server.Start()

	t.Cleanup(func() {
		close(e.free)
		e.server.Close()
	})

	return e
}

func (e *engine) target(config *spec.PackageConfig) health.Target {
	return health.Target{Network: "tcp", Address: e.server.Listener.Addr().String(), Scheme: "http", Config: config}
}

// watch probes t until the test ends.
func watch(t *testing.T, target health.Target) <-chan health.Report {
	t.Helper()

	p := health.New(nil)
	reports := make(chan health.Report, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})

	go func() {
		defer close(done)
		p.Watch(ctx, target, func(r health.Report) { reports <- r })
	}()

	t.Cleanup(func() {
		cancel()
		<-done
		p.Close()
	})

	return reports
}

func expect(t *testing.T, reports <-chan health.Report, want health.Report) {
	t.Helper()

	select {
	case got := <-reports:
		if got != want {
			t.Fatalf("report %+v, want %+v", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("no report; want %+v", want)
	}
}

func TestWorkerIsFollowedThroughItsStates(t *testing.T) {
	t.Parallel()

	e := newEngine(t, `503 {"health":"false","state":"loading"}`)
	target := e.target(&spec.PackageConfig{Health: &spec.Health{URL: "/elsewhere"}})
	target.Worker = true

	reports := watch(t, target)
	expect(t, reports, health.Report{State: spec.InstanceLoading, Reason: "loading"})
	e.answer.Store(`503 {"health":"false","state":"warming"}`)
	expect(t, reports, health.Report{State: spec.InstanceWarming, Reason: "warming"})
	e.answer.Store(`200 {"health":"true"}`)
	expect(t, reports, health.Report{State: spec.InstanceReady})

	if path := e.path.Load(); path != "/health" {
		t.Errorf("probed %v", path)
	}

	e.answer.Store(`503 {"health":"false","state":"draining"}`)
	expect(t, reports, health.Report{State: spec.InstanceDraining, Reason: "draining"})

	if n := e.conns.Load(); n != 1 {
		t.Errorf("%d connections for %d probes", n, e.probes.Load())
	}
}

// TestReadyInstanceMayMissAProbe: who takes over an instance that serves does not take it out because the
// first probe failed, and still notices that it hangs.
func TestReadyInstanceMayMissAProbe(t *testing.T) {
	t.Parallel()

	e := newEngine(t, "500 busy")
	target := e.target(&spec.PackageConfig{})
	target.Worker, target.Ready = true, true

	reports := watch(t, target)
	expect(t, reports, health.Report{State: spec.InstanceReady})

	select {
	case got := <-reports:
		if got.State != spec.InstanceLoading || !got.Hung {
			t.Errorf("report %+v", got)
		}
	case <-time.After(patience):
		t.Error("nobody notices that it does not answer")
	}
}

func TestWorkerTellsWhyItFailed(t *testing.T) {
	t.Parallel()

	e := newEngine(t, `503 {"health":"false","state":"failed","reason":"model.onnx: not an ONNX file"}`)
	target := e.target(&spec.PackageConfig{})
	target.Worker = true

	expect(t, watch(t, target), health.Report{State: spec.InstanceFailed, Reason: "model.onnx: not an ONNX file"})
}

func TestCustomEngineIsProbedByItsHealthBlock(t *testing.T) {
	t.Parallel()

	e := newEngine(t, "200 fine")
	reports := watch(t, e.target(&spec.PackageConfig{
		Health: &spec.Health{CheckMethod: "http", URL: "status?deep=1", PeriodSeconds: 1, FailureThreshold: 2},
	}))
	expect(t, reports, health.Report{State: spec.InstanceReady})

	if path := e.path.Load(); path != "/status?deep=1" {
		t.Errorf("probed %v", path)
	}

	// One failure is nothing; the threshold is.
	e.answer.Store("500 oops")
	expect(t, reports, health.Report{State: spec.InstanceLoading, Reason: "/status?deep=1 answers 500", Hung: true})
}

func TestHealthFalseWithStatus200IsNotReady(t *testing.T) {
	t.Parallel()

	e := newEngine(t, `200 {"health":"false"}`)
	config := &spec.PackageConfig{Health: &spec.Health{URL: "/health"}}
	reports := watch(t, e.target(config))
	expect(t, reports, health.Report{State: spec.InstanceLoading, Reason: "/health answers 200"})

	e.answer.Store(`200 {"health":true}`)
	expect(t, reports, health.Report{State: spec.InstanceReady})
}

func TestEngineThatNeverAnswersIsReportedAsHung(t *testing.T) {
	t.Parallel()

	e := newEngine(t, "200")
	reports := watch(t, e.target(&spec.PackageConfig{
		Health: &spec.Health{URL: "/health", TimeoutSeconds: 1, FailureThreshold: 1},
	}))
	expect(t, reports, health.Report{State: spec.InstanceReady})
	e.answer.Store("hang")
	expect(t, reports, health.Report{State: spec.InstanceLoading, Reason: "no answer to a probe within 1s", Hung: true})
}

func TestEngineWithoutHealthBlockIsReadyWhenItListens(t *testing.T) {
	t.Parallel()

	e := newEngine(t, "500")
	expect(t, watch(t, e.target(&spec.PackageConfig{})), health.Report{State: spec.InstanceReady})

	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	address := ln.Addr().String()
	_ = ln.Close()

	reports := watch(t, health.Target{Network: "tcp", Address: address, Config: &spec.PackageConfig{}})
	expect(t, reports, health.Report{State: spec.InstanceLoading, Reason: "dial: connect: connection refused"})
}

func TestStartupHealthDecidesUntilItSucceeds(t *testing.T) {
	t.Parallel()

	e := newEngine(t, "200")
	reports := watch(t, e.target(&spec.PackageConfig{
		Health:        &spec.Health{URL: "/alive", PeriodSeconds: 1},
		StartupHealth: &spec.Health{URL: "/started"},
	}))
	expect(t, reports, health.Report{State: spec.InstanceReady})

	if path := e.path.Load(); path != "/started" {
		t.Errorf("probed %v first", path)
	}

	for end := time.Now().Add(patience); e.path.Load() != "/alive"; {
		if time.Now().After(end) {
			t.Fatalf("still probes %v", e.path.Load())
		}

		<-time.After(10 * time.Millisecond) // another process's clock cannot be virtual
	}
}

func TestCommandsProbe(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	reports := watch(t, health.Target{
		Dir: dir, Env: []string{"FLAG=up"},
		Config: &spec.PackageConfig{Health: &spec.Health{CheckMethod: "EXEC", Command: `echo "no $FLAG here"; test -e "$FLAG"`}},
	})
	expect(t, reports, health.Report{State: spec.InstanceLoading, Reason: "health command: exit status 1: no up here"})

	if err := os.WriteFile(filepath.Join(dir, "up"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	expect(t, reports, health.Report{State: spec.InstanceReady})
}

func TestCommandRunsAsTheEnginesUser(t *testing.T) {
	t.Parallel()

	if os.Getuid() != 0 {
		t.Skip("only root may change the user")
	}

	// The user may enter the last directory only.
	above := t.TempDir()
	dir := filepath.Join(above, "package")

	if err := errors.Join(os.Chmod(above, 0o700), os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "here"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}

	const nobody = 65534

	was, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}

	reports := watch(t, health.Target{
		Dir: dir, Env: os.Environ(), User: &syscall.Credential{Uid: nobody, Gid: nobody},
		Config: &spec.PackageConfig{Health: &spec.Health{CheckMethod: "EXEC", Command: `ls here && id -u && test -e up`}},
	})
	expect(t, reports, health.Report{State: spec.InstanceLoading, Reason: "health command: exit status 1: here\n65534"})

	if err := os.WriteFile(filepath.Join(dir, "up"), nil, 0o644); err != nil {
		t.Fatal(err)
	}

	expect(t, reports, health.Report{State: spec.InstanceReady})

	if now, err := os.Getwd(); err != nil || now != was {
		t.Errorf("our own directory is %s now, %v", now, err)
	}
}

func TestCommandThatHangsIsKilledWithItsChildren(t *testing.T) {
	t.Parallel()

	begin := time.Now()
	reports := watch(t, health.Target{
		Dir: t.TempDir(), Env: os.Environ(),
		Config: &spec.PackageConfig{Health: &spec.Health{CheckMethod: "EXEC", Command: "sleep 300; true", TimeoutSeconds: 1}},
	})
	expect(t, reports, health.Report{State: spec.InstanceLoading, Reason: "no answer to a probe within 1s"})

	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("took %s", d)
	}
}

func TestUnixSocketsAndTLS(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "s")

	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}

	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	server := httptest.NewUnstartedServer(handler)
	_ = server.Listener.Close()
	server.Listener = ln
	server.Start()
	t.Cleanup(server.Close)

	config := &spec.PackageConfig{Health: &spec.Health{URL: "/health"}}
	expect(t, watch(t, health.Target{Network: "unix", Address: path, Config: config}), health.Report{State: spec.InstanceReady})

	secure := httptest.NewTLSServer(handler)
	t.Cleanup(secure.Close)

	target := health.Target{Network: "tcp", Address: secure.Listener.Addr().String(), Scheme: "https", Config: config}
	expect(t, watch(t, target), health.Report{State: spec.InstanceReady})
}
