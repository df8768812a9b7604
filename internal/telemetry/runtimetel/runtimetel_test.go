package runtimetel_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/telemetry/runtimetel"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

func TestMetricsCarryTritonsNames(t *testing.T) {
	t.Parallel()

	reg := telemetry.New("test")
	m := runtimetel.New(reg)
	h := m.Repo().Batch("m", "1")

	h.Pending(7)
	h.Cut(batch.ReasonFull, 2, 8)
	h.Finished(batch.Info{Rows: 3, Queue: time.Millisecond, CopyIn: 2 * time.Microsecond, Run: 100 * time.Microsecond, CopyOut: 500 * time.Nanosecond}, nil)
	h.Finished(batch.Info{Rows: 5}, fault.New(fault.BackendFailed, "x"))
	h.Finished(batch.Info{Rows: 5}, context.Canceled)

	negative := m.Repo().Batch("odd", "1")
	negative.Finished(batch.Info{Rows: 1, Queue: -time.Millisecond}, nil)
	h.Rejected(batch.RejectQueueFull, 1)
	h.Rejected(batch.RejectCancelled, 1)
	m.Serve().Served("v2", 200, time.Millisecond)
	m.Serve().Served("v2", 200, time.Millisecond)
	m.Serve().Served("odd", 99999, time.Millisecond)
	m.Repo().State(repo.Status{Name: "m", Version: "1", State: repo.Loading})
	m.Repo().State(repo.Status{Name: "m", Version: "1", State: repo.Ready})

	rec := httptest.NewRecorder()
	reg.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))

	text := rec.Body.String()

	for _, want := range []string{
		`nv_inference_compute_infer_duration_us{model="m",version="1"} 100`,
		`nv_inference_count{model="m",version="1"} 3`,
		`nv_inference_exec_count{model="m",version="1"} 1`,
		`nv_inference_pending_request_count{model="m",version="1"} 7`,
		`nv_inference_request_duration_us{model="m",version="1"} 1102.5`,
		`nv_inference_request_failure{model="m",reason="BACKEND",version="1"} 1`,
		`nv_inference_request_failure{model="m",reason="CANCELED",version="1"} 2`,
		`nv_inference_request_failure{model="m",reason="OTHER",version="1"} 0`,
		`nv_inference_request_failure{model="m",reason="REJECTED",version="1"} 1`,
		`nv_inference_request_success{model="m",version="1"} 1`,
		`sluice_model_state{model="m",state="ready",version="1"} 1`,
		`sluice_worker_requests_total{protocol="other",status="0"} 1`,
		`sluice_worker_requests_total{protocol="v2",status="200"} 2`,
		`nv_inference_request_duration_histogram_us_bucket{model="m",version="1",le="2500"} 1`,
		`nv_inference_queue_duration_histogram_us_sum{model="m",version="1"} 1000`,
		`sluice_batch_rows_bucket{model="m",reason="full",version="1",le="8"} 1`,
		`sluice_batch_rows_bucket{model="m",reason="full",version="1",le="4"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}

	if strings.Contains(text, `state="loading"`) {
		t.Error("a version has two states")
	}
}

func TestAForgottenVersionHasNoSeries(t *testing.T) {
	t.Parallel()

	reg := telemetry.New("test")
	hooks := runtimetel.New(reg).Repo()

	for _, version := range []string{"1", "2"} {
		hooks.State(repo.Status{Name: "m", Version: version, State: repo.Unloaded})
		hooks.Loaded("m", version, 1)
		hooks.Batch("m", version).Pending(3)
	}

	hooks.Forgotten("m", "1")

	rec := httptest.NewRecorder()
	reg.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))

	if text := rec.Body.String(); strings.Contains(text, `version="1"`) || !strings.Contains(text, `version="2"`) {
		t.Errorf("series:\n%s", text)
	}
}
