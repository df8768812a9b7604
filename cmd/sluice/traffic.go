package main

import (
	"errors"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/gateway/upstream"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/router/pool"
)

// admissionSettings are the limits that hold beside those of a service. A rate of 0 is no limit.
type admissionSettings struct {
	Global    rateSettings `yaml:"global"`
	Project   rateSettings `yaml:"project"`
	Principal rateSettings `yaml:"principal"`
	App       rateSettings `yaml:"app"`
	// Service and Concurrency hold for services that have no limits of their own.
	Service     rateSettings `yaml:"service"`
	Concurrency int          `yaml:"concurrency"`
	// SlotWait is how long a request waits for a slot of its service.
	SlotWait config.Duration `yaml:"slot_wait"`
	// FailedAuth is how many failed authentications a network (a /24 or a /56) may cause before
	// further ones are told to come later; a negative rate turns the bound off.
	FailedAuth rateSettings `yaml:"failed_auth"`
	// Anonymous is what services that ask nobody's name give to one network in all.
	Anonymous rateSettings `yaml:"anonymous"`
	// MaxKeys bounds how many callers are remembered, of each kind.
	MaxKeys int `yaml:"max_keys"`
	// Headers adds X-RateLimit-* to answers.
	Headers bool `yaml:"headers"`
}

type rateSettings struct {
	RequestsPerSecond float64 `yaml:"requests_per_second"`
	// Burst is how many may come at once; default: as many as in a second.
	Burst int `yaml:"burst"`
}

func (r rateSettings) rate() limit.Rate {
	return limit.Rate{PerSecond: r.RequestsPerSecond, Burst: r.Burst}
}

// routingSettings are about requests on their way to an instance.
type routingSettings struct {
	// Timeout and Attempts hold for services that have none of their own.
	Timeout  config.Duration `yaml:"timeout"`
	Attempts int             `yaml:"attempts"`
	// Buffer is the largest body that is kept for a retry.
	Buffer config.ByteSize `yaml:"buffer"`
	// Patience is how long a request waits for a service that just lost its last instance.
	Patience config.Duration `yaml:"patience"`
	// RetryRatio of the active requests may be retries.
	RetryRatio float64 `yaml:"retry_ratio"`
	// MaxInFlight requests per instance; MaxQueue more wait per version, QueueWait at most.
	MaxInFlight int             `yaml:"max_in_flight"`
	MaxQueue    int             `yaml:"max_queue"`
	QueueWait   config.Duration `yaml:"queue_wait"`
	// SlowStart is how long a new instance takes to its full share.
	SlowStart config.Duration `yaml:"slow_start"`
	// StreamIdle is how long a streamed answer may pause, where the service has no bound of its own.
	StreamIdle config.Duration `yaml:"stream_idle"`
	// Node is the machine of this gateway; instances on it are preferred.
	Node string `yaml:"node"`
}

func defaultAdmission() admissionSettings {
	c := limit.Config{}.Defaults()

	return admissionSettings{
		SlotWait: config.Duration(c.SlotWait), MaxKeys: c.MaxKeys, Headers: true,
		FailedAuth: rateSettings{RequestsPerSecond: c.Source.PerSecond, Burst: c.Source.Burst},
	}
}

func defaultRouting() routingSettings {
	g, p := gateway.Config{}.Defaults(), plan.Config{}.Defaults()

	return routingSettings{
		Timeout: config.Duration(p.Timeout), Attempts: p.Attempts, Buffer: config.ByteSize(g.BufferBytes),
		Patience: config.Duration(g.Patience), RetryRatio: g.RetryRatio, MaxInFlight: p.Pool.MaxInFlight,
		MaxQueue: p.Pool.MaxQueue, QueueWait: config.Duration(p.Pool.QueueWait), SlowStart: config.Duration(p.Pool.SlowStart),
		StreamIdle: config.Duration(upstream.Config{}.Defaults().StreamIdle),
	}
}

// limits is the configuration of admission.
func (a *admissionSettings) limits(hooks limit.Hooks) limit.Config {
	return limit.Config{
		Global: a.Global.rate(), Project: a.Project.rate(), Principal: a.Principal.rate(), App: a.App.rate(),
		Service: a.Service.rate(), Source: a.FailedAuth.rate(), Anonymous: a.Anonymous.rate(), Concurrency: a.Concurrency,
		SlotWait: orNone(a.SlotWait), MaxKeys: a.MaxKeys, NoHeaders: !a.Headers, Hooks: hooks,
	}
}

// orNone makes a duration of 0, written by an operator, what the packages take for "not at all".
func orNone(d config.Duration) time.Duration {
	if d == 0 {
		return -1
	}

	return d.D()
}

// upstream is the configuration of the connections to instances.
func (r *routingSettings) upstream() upstream.Config {
	return upstream.Config{StreamIdle: r.StreamIdle.D()}
}

// corridor is the configuration of the corridor.
func (r *routingSettings) corridor() gateway.Config {
	return gateway.Config{BufferBytes: int64(r.Buffer), Patience: orNone(r.Patience), RetryRatio: r.RetryRatio}
}

// plan is what services get that say nothing.
func (r *routingSettings) plan(bodyBytes config.ByteSize, hooks pool.Hooks) plan.Config {
	return plan.Config{
		BodyBytes: int64(bodyBytes), Timeout: r.Timeout.D(), Attempts: r.Attempts,
		Pool: pool.Config{
			MaxInFlight: r.MaxInFlight, MaxQueue: r.MaxQueue, QueueWait: r.QueueWait.D(), SlowStart: orNone(r.SlowStart),
			Node: r.Node, Hooks: hooks,
		},
	}
}

// validateTraffic checks what the packages would refuse.
func (s *settings) validateTraffic() error {
	return errors.Join(
		config.Prefix("admission", s.Admission.limits(limit.Hooks{}).Validate()),
		config.Prefix("routing", s.Routing.corridor().Validate()),
		config.Prefix("routing", s.Routing.upstream().Validate()),
		config.Prefix("routing", s.Routing.plan(s.Edge.Limits.Body, pool.Hooks{}).Validate()),
	)
}
