// Package controltel turns what the control plane's rooms report into metrics. Services and
// instances come and go, so that none of them is named by a label.
package controltel

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/control/rollout/runner"
	"github.com/sluice-gateway/sluice/spec"
)

// Counts tells how many services have each status and how many instances each state.
type Counts func() (map[spec.ServiceStatus]int, map[spec.InstanceState]int)

// Rollout returns hooks that count steps and events. counts is asked at each scrape.
func Rollout(reg prometheus.Registerer, counts Counts) runner.Hooks {
	steps := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_rollout_steps_total", Help: "Decisions about services that were written, or could not be.",
	}, []string{"result"})
	took := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "sluice_rollout_step_seconds", Help: "Time of a decision, from reading to acting.",
		Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3},
	})
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sluice_service_events_total", Help: "Events of services.",
	}, []string{"type"})
	gone := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sluice_instances_ended_total", Help: "Instances that ended, whether asked to or not.",
	})

	reg.MustRegister(steps, took, events, gone, &states{counts: counts})

	written, failed := steps.WithLabelValues("written"), steps.WithLabelValues("failed")
	normal, abnormal := events.WithLabelValues("normal"), events.WithLabelValues("abnormal")

	return runner.Hooks{
		Step: func(_ string, d time.Duration, err error) {
			took.Observe(d.Seconds())

			if err != nil {
				failed.Inc()
			} else {
				written.Inc()
			}
		},
		Event: func(ev spec.Event) {
			if ev.Type == "abnormal" {
				abnormal.Inc()
			} else {
				normal.Inc()
			}
		},
		Gone: func(string, string) { gone.Inc() },
	}
}

// Publish returns what is told of every snapshot.
func Publish(reg prometheus.Registerer) func(revision int64, took time.Duration) {
	newest := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_snapshot_revision", Help: "Revision of the newest snapshot; how far a gateway is behind is this less sluice_plan_revision.",
	})
	cost := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "sluice_snapshot_build_seconds", Help: "Time to build a snapshot.", Buckets: []float64{.0001, .001, .01, .1, 1},
	})

	reg.MustRegister(newest, cost)

	return func(revision int64, took time.Duration) {
		newest.Set(float64(revision))
		cost.Observe(took.Seconds())
	}
}

// states is a collector of Counts. All statuses are shown, so that a zero is a zero.
type states struct{ counts Counts }

//nolint:gochecknoglobals // constant
var (
	servicesDesc  = prometheus.NewDesc("sluice_services", "Services by status.", []string{"status"}, nil)
	instancesDesc = prometheus.NewDesc("sluice_instances", "Instances by state.", []string{"state"}, nil)

	statuses = []spec.ServiceStatus{
		spec.ServiceRunning, spec.ServiceDeploying, spec.ServiceConcerning, spec.ServiceFailed,
		spec.ServiceStopped, spec.ServiceStopping, spec.ServiceDeleting,
	}
	instanceStates = []spec.InstanceState{
		spec.InstanceQueued, spec.InstanceFetching, spec.InstanceVerifying, spec.InstanceLoading, spec.InstanceWarming, spec.InstanceReady,
		spec.InstanceDraining, spec.InstanceFailed,
	}
)

// Describe implements prometheus.Collector.
func (*states) Describe(ch chan<- *prometheus.Desc) {
	ch <- servicesDesc

	ch <- instancesDesc
}

// Collect implements prometheus.Collector.
func (s *states) Collect(ch chan<- prometheus.Metric) {
	services, instances := s.counts()

	for _, st := range statuses {
		ch <- prometheus.MustNewConstMetric(servicesDesc, prometheus.GaugeValue, float64(services[st]), string(st))
	}

	for _, st := range instanceStates {
		ch <- prometheus.MustNewConstMetric(instancesDesc, prometheus.GaugeValue, float64(instances[st]), string(st))
	}
}
