package gatewaytel

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/router/pool"
)

// Corridor returns hooks that count retries and broken invariants.
func Corridor(reg prometheus.Registerer) gateway.Hooks {
	retries := counters("sluice_retries_total", "Attempts that failed and were followed by another.", "reason")
	panics := counter("sluice_gateway_panics_total", "Panics that the corridor turned into a 500.")
	byCode := make([]atomic.Pointer[prometheus.Counter], fault.Count())

	reg.MustRegister(retries, panics)

	return gateway.Hooks{
		Retried: func(_ *gateway.Call, err error) {
			f := fault.From(err)
			if f == nil || int(f.Code) >= len(byCode) {
				return
			}

			cached(&byCode[f.Code], func() prometheus.Counter { return retries.WithLabelValues(retryReason(f.Code)) }).Inc()
		},
		Panicked: func(*gateway.Call, any, []byte) { panics.Inc() },
	}
}

func retryReason(code fault.Code) string {
	switch code { //nolint:exhaustive // the reasons worth telling apart
	case fault.BackendUnreachable:
		return "unreachable"
	case fault.BackendFailed:
		return "failed"
	case fault.BackendTimeout:
		return "timeout"
	case fault.NoInstance, fault.BreakerOpen:
		return "no_instance"
	case fault.Overloaded:
		return "overloaded"
	default:
		return "other"
	}
}

// Plan returns hooks that tell which revision is in force and what keeps the newest one out.
func Plan(reg prometheus.Registerer) plan.Hooks {
	revision := gauge("sluice_plan_revision", "Revision of the plan in force.")
	services := gauge("sluice_plan_services", "Services in the plan in force.")
	since := gauge("sluice_plan_swapped_timestamp_seconds", "When the plan in force was put there.")
	refused := gauge("sluice_plan_refused_revision", "Newest revision that did not compile; 0 when the plan in force is newer.")
	refusals := counter("sluice_plan_refused_total", "Revisions that did not compile.")
	away := counter("sluice_plan_source_errors_total", "Failures to reach the source of plans.")
	took := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "sluice_plan_compile_seconds", Help: "Time to compile a plan.", Buckets: []float64{.0001, .001, .01, .1, 1, 10},
	})

	reg.MustRegister(revision, services, since, refused, refusals, away, took)

	return plan.Hooks{
		Swapped: func(r int64, n int, d time.Duration) {
			revision.Set(float64(r))
			services.Set(float64(n))
			since.SetToCurrentTime()
			refused.Set(0)
			took.Observe(d.Seconds())
		},
		Refused: func(r int64, _ error) {
			refused.Set(float64(r))
			refusals.Inc()
		},
		Away: func(error) { away.Inc() },
	}
}

// Behind measures how long ago the state answered that plans are made of.
func Behind(reg prometheus.Registerer, since func() time.Duration) {
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sluice_plan_source_silent_seconds",
		Help: "Time since etcd answered last: what changed since then is in no plan.",
	}, func() float64 { return since().Seconds() }))
}

// Auth returns hooks that count what the verifier refuses, by the code that clients see.
func Auth(reg prometheus.Registerer) auth.Hooks {
	rejected := counters("sluice_auth_rejected_total", "Requests that did not authenticate.", "code")
	tokens := counters("sluice_auth_token_cache_total", "Tokens looked up in the cache of verified ones.", "result")
	locked := counter("sluice_auth_locked_total", "Times that an access key was locked for a source.")
	evicted := counter("sluice_auth_replay_evicted_total", "Signatures that the replay cache forgot too early.")

	reg.MustRegister(rejected, tokens, locked, evicted)

	byCode := make([]atomic.Pointer[prometheus.Counter], fault.Count())
	hit, miss := tokens.WithLabelValues("hit"), tokens.WithLabelValues("miss")

	return auth.Hooks{
		Rejected: func(code fault.Code) {
			if int(code) < len(byCode) {
				cached(&byCode[code], func() prometheus.Counter { return rejected.WithLabelValues(authReason(code)) }).Inc()
			}
		},
		TokenCache: func(found bool) {
			if found {
				hit.Inc()
			} else {
				miss.Inc()
			}
		},
		Locked:        func(string, netip.Prefix) { locked.Inc() },
		ReplayEvicted: evicted.Inc,
	}
}

//nolint:gochecknoglobals,exhaustive // a constant table of what verifiers answer
var authReasons = map[fault.Code]string{
	fault.NoCredentials: "no_credentials", fault.AuthFormat: "format", fault.TokenInvalid: "token_invalid",
	fault.TokenExpired: "token_expired", fault.TokenRevoked: "token_revoked", fault.TokenScope: "token_scope",
	fault.AccessKeyUnknown: "access_key_unknown", fault.SignatureMismatch: "signature_mismatch",
	fault.SignatureExpired: "signature_expired", fault.SignatureReplayed: "signature_replayed",
	fault.AccessKeyLocked: "access_key_locked", fault.AppUnknown: "app_unknown", fault.AppSignature: "app_signature",
	fault.AppSignatureExpired: "app_signature_expired", fault.AppNotAuthorised: "app_not_authorised",
	fault.AuthTypeNotAllowed: "type_not_allowed", fault.TLSRequired: "tls_required", fault.Forbidden: "forbidden",
	fault.ProjectMismatch: "project_mismatch", fault.SourceDenied: "source_denied",
}

func authReason(code fault.Code) string {
	if s, ok := authReasons[code]; ok {
		return s
	}

	return code.Wire()
}

// Pool returns hooks that count what happens to instances, not which: instances come and go.
func Pool(reg prometheus.Registerer) pool.Hooks {
	ejected := counters("sluice_instances_ejected_total", "Instances taken out for a while.", "reason")
	breakers := counters("sluice_breaker_changes_total", "Changes of an instance's breaker.", "state")
	panics := counter("sluice_pool_panic_total", "Times that so many instances were out that all were used again.")
	queued := counter("sluice_pool_queued_total", "Requests that had to wait for capacity.")

	reg.MustRegister(ejected, breakers, panics, queued)

	return pool.Hooks{
		Ejected:        func(_, reason string, _ time.Duration) { ejected.WithLabelValues(reason).Inc() },
		BreakerChanged: func(_, state string) { breakers.WithLabelValues(state).Inc() },
		Panic:          func(string) { panics.Inc() },
		Queued:         func(string, int) { queued.Inc() },
	}
}

// Limits returns hooks that count refusals by the bound that refused.
func Limits(reg prometheus.Registerer) limit.Hooks {
	limited := counters("sluice_limited_total", "Requests refused by a rate or for want of a slot.", "bound")
	reg.MustRegister(limited)

	var handles [limit.NumBounds]prometheus.Counter
	for b := range limit.NumBounds {
		handles[b] = limited.WithLabelValues(b.String())
	}

	return limit.Hooks{Limited: func(b limit.Bound) { handles[b].Inc() }}
}
