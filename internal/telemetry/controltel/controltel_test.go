package controltel_test

import (
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-gateway/sluice/internal/telemetry/controltel"
	"github.com/sluice-gateway/sluice/spec"
)

func TestControlReportsCounts(t *testing.T) {
	t.Parallel()

	reg := prometheus.NewPedanticRegistry()
	hooks := controltel.Rollout(reg, func() (map[spec.ServiceStatus]int, map[spec.InstanceState]int) {
		services, instances := map[spec.ServiceStatus]int{}, map[spec.InstanceState]int{}
		services[spec.ServiceRunning], instances[spec.InstanceReady] = 2, 5

		return services, instances
	})
	published := controltel.Publish(reg)

	hooks.Step("s", time.Millisecond, nil)
	hooks.Step("s", time.Millisecond, errors.New("etcd is away"))
	hooks.Event(spec.Event{Type: "abnormal"})
	hooks.Event(spec.Event{Type: "normal"})
	hooks.Event(spec.Event{Type: "normal"})
	hooks.Gone("s", "i")
	published(7, time.Millisecond)

	fetches := controltel.Fetch(reg)
	fetches.Fetched(1000, time.Second, nil)
	fetches.Fetched(24, time.Second, errors.New("cut"))
	controltel.Fetching(reg, func() (int, int64, int64) { return 2, 30, 100 })

	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))

	got := strings.Split(w.Body.String(), "\n")

	for _, want := range []string{
		`sluice_instances{state="ready"} 5`,
		`sluice_instances{state="failed"} 0`,
		`sluice_services{status="running"} 2`,
		`sluice_services{status="concerning"} 0`,
		`sluice_instances_ended_total 1`,
		`sluice_rollout_steps_total{result="failed"} 1`,
		`sluice_rollout_steps_total{result="written"} 1`,
		`sluice_rollout_step_seconds_count 2`,
		`sluice_service_events_total{type="abnormal"} 1`,
		`sluice_service_events_total{type="normal"} 2`,
		`sluice_snapshot_revision 7`,
		`sluice_instances{state="verifying"} 0`,
		`sluice_package_fetches_total{result="fetched"} 1`,
		`sluice_package_fetches_total{result="failed"} 1`,
		`sluice_package_fetched_bytes_total 1024`,
		`sluice_package_fetch_seconds_count 1`,
		`sluice_package_fetches 2`,
		`sluice_package_fetching_bytes 30`,
		`sluice_package_fetching_total_bytes 100`,
		`sluice_snapshot_build_seconds_count 1`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("missing %s in\n%s", want, w.Body)
		}
	}
}
