package gatewaytel_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/telemetry/gatewaytel"
)

func TestRoomsReportWithoutNamesFromOutside(t *testing.T) {
	t.Parallel()

	reg := prometheus.NewPedanticRegistry()
	corridor, plans := gatewaytel.Corridor(reg), gatewaytel.Plan(reg)
	verifier, pools := gatewaytel.Auth(reg), gatewaytel.Pool(reg)

	corridor.Retried(nil, fault.New(fault.BackendUnreachable, ""))
	corridor.Retried(nil, errors.New("unclassified"))
	corridor.Panicked(nil, "x", nil)
	plans.Swapped(7, 3, time.Millisecond)
	plans.Refused(8, errors.New("broken"))
	plans.Away(errors.New("away"))
	verifier.Rejected(fault.SignatureMismatch)
	verifier.Rejected(fault.SignatureMismatch)
	verifier.TokenCache(true)
	verifier.TokenCache(false)
	verifier.TokenCache(true)
	verifier.Locked("AK", netip.Prefix{})
	verifier.ReplayEvicted()
	pools.Ejected("i-1", "errors", time.Second)
	pools.BreakerChanged("i-1", "open")
	pools.Panic("p")
	pools.Queued("p", 2)
	gatewaytel.Limits(reg).Limited(limit.BoundService)

	got := lines(t, reg)

	for _, want := range []string{
		`sluice_retries_total{reason="unreachable"} 1`,
		`sluice_retries_total{reason="other"} 1`,
		`sluice_gateway_panics_total 1`,
		`sluice_plan_revision 7`,
		`sluice_plan_services 3`,
		`sluice_plan_refused_revision 8`,
		`sluice_plan_source_errors_total 1`,
		`sluice_auth_rejected_total{code="signature_mismatch"} 2`,
		`sluice_auth_token_cache_total{result="hit"} 2`,
		`sluice_auth_token_cache_total{result="miss"} 1`,
		`sluice_auth_locked_total 1`,
		`sluice_auth_replay_evicted_total 1`,
		`sluice_instances_ejected_total{reason="errors"} 1`,
		`sluice_breaker_changes_total{state="open"} 1`,
		`sluice_pool_panic_total 1`,
		`sluice_pool_queued_total 1`,
		`sluice_limited_total{bound="service"} 1`,
		`sluice_limited_total{bound="global"} 0`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("missing %s", want)
		}
	}

	plans.Swapped(9, 3, time.Millisecond)

	if got := lines(t, reg); !slices.Contains(got, "sluice_plan_refused_revision 0") {
		t.Error("a newer plan did not clear the refusal")
	}
}
