package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/control/health"
	"github.com/sluice-gateway/sluice/control/launch"
	"github.com/sluice-gateway/sluice/control/rollout"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/spec"
)

// Launcher starts and stops processes. launch.Local is one.
type Launcher interface {
	Start(t launch.Task) error
	Stop(id string, grace time.Duration)
	Shutdown(ctx context.Context, grace time.Duration) error
}

// Adopter is a Launcher that can take over processes that another control process of this machine started.
type Adopter interface {
	Adopt(t launch.Task, pid int) (launch.Status, error)
	// Keep lets a process outlive this one: its instance is recorded, so that others find it.
	Keep(id string)
}

// Hooks tell what happens; a nil func is skipped. They are called from many goroutines and
// must not block.
type Hooks struct {
	// Gone is called as soon as an instance can serve no more, before anything is written.
	Gone func(serviceID, instanceID string)
	// Forgotten is called when a deleted service has left nothing.
	Forgotten func(serviceID string)
	// Event is called with every event of a service.
	Event func(ev spec.Event)
	// Step is called after each step that was written, with the time that it took.
	Step func(serviceID string, took time.Duration, err error)
}

// Config of a Runner.
type Config struct {
	Policy rollout.Policy
	// Node names this machine in the records of its instances. Default: the host name.
	Node string
	// DrainDelay is the time between announcing that an instance drains and telling it,
	// in which gateways stop choosing it. Default 500 ms.
	DrainDelay time.Duration
	// Workers is the number of services that step at the same time. Default 4.
	Workers int
	// Adopt takes over the processes that another control process of this machine left. The launcher
	// must be an Adopter.
	Adopt bool
	// Wall tells the time of day; tests set it. Default time.Now. How much time has passed is
	// never taken from it.
	Wall  func() time.Time
	Hooks Hooks
}

// Runner makes instances what rollout.Step says they should be.
type Runner struct {
	cfg      Config
	store    *store.Store
	launcher Launcher
	prober   *health.Prober
	log      *slog.Logger
	queue    *queue

	mu       sync.Mutex // guards the maps and everything in services
	services map[string]*service
	models   map[string]*spec.Model
	probing  context.Context //nolint:containedctx // the life of probes, which start long after Run began
	probes   sync.WaitGroup
}

// service is what the runner knows of one service. The records are written by one worker at a time.
type service struct {
	desired  store.Item[spec.Service]
	exists   bool
	state    store.Item[spec.ServiceState]
	records  map[string]spec.Instance
	observed map[string]*observed
	stale    bool // the records must be read again
	retry    time.Duration
	stepped  reading // of the clock, at the last step that was written
}

// observed is an observation and what it depends on.
type observed struct {
	rollout.Observation

	target    health.Target
	stopProbe context.CancelFunc
	draining  bool // told to drain
	kept      bool // may outlive this process
}

// New returns a runner; it starts nothing.
func New(cfg Config, st *store.Store, l Launcher, p *health.Prober, log *slog.Logger) (*Runner, error) {
	if cfg.Node == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("name this machine: %w", err)
		}

		cfg.Node = name
	}

	if cfg.DrainDelay <= 0 {
		cfg.DrainDelay = 500 * time.Millisecond
	}

	if cfg.Workers <= 0 {
		cfg.Workers = 4
	}

	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}

	cfg.Policy = cfg.Policy.WithDefaults()

	return &Runner{
		cfg: cfg, store: st, launcher: l, prober: p, log: log, queue: newQueue(cfg.Wall),
		services: map[string]*service{}, models: map[string]*spec.Model{},
	}, nil
}

// Run follows the store until ctx ends. Processes go on when it returns: Shutdown or Release
// ends them, another Run takes them over.
func (r *Runner) Run(ctx context.Context) error {
	run, cancel := context.WithCancel(ctx)
	defer r.probes.Wait()
	defer r.endProbing()
	defer cancel()

	servicesAt, modelsAt, err := r.load(run)
	if err != nil {
		return err
	}

	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	wg.Go(func() { r.queue.runTimers(run) })

	for range r.cfg.Workers {
		wg.Go(func() { r.work(run) })
	}

	r.follow(run, servicesAt, modelsAt)

	return nil
}

// endProbing makes sure that no probe is added any more.
func (r *Runner) endProbing() {
	r.mu.Lock()
	defer r.mu.Unlock()

	r.probing = nil
}

// Shutdown lets every process finish what it accepted, and ends it. Call it after Run has returned.
func (r *Runner) Shutdown(ctx context.Context) error {
	if err := r.launcher.Shutdown(ctx, r.cfg.Policy.Grace); err != nil {
		return fmt.Errorf("end instances: %w", err)
	}

	return nil
}

// load reads everything once.
func (r *Runner) load(ctx context.Context) (servicesAt, modelsAt int64, err error) {
	models, modelsAt, err := r.store.Models.List(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("load models: %w", err)
	}

	states, _, err := r.store.ServiceStates.List(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("load states: %w", err)
	}

	instances, _, err := r.store.Instances.List(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("load instances: %w", err)
	}

	services, servicesAt, err := r.store.Services.List(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("load services: %w", err)
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	r.probing = ctx

	for i := range models {
		r.models[models[i].ID] = &models[i].Value
	}

	// Processes of an earlier Run may be alive: what was observed of them stays.
	for _, s := range r.services {
		s.exists, s.state, s.records = false, store.Item[spec.ServiceState]{}, map[string]spec.Instance{}
	}

	for i := range states {
		r.service(states[i].ID).state = states[i]
	}

	for i := range instances {
		v := instances[i].Value
		r.service(v.ServiceID).records[v.ID] = v
	}

	for i := range services {
		s := r.service(services[i].ID)
		s.desired, s.exists = services[i], true
	}

	for id := range r.services {
		r.queue.add(id)
	}

	r.inherit() //nolint:contextcheck // the same
	r.adopt()   //nolint:contextcheck // probes live as long as Run, whose context it knows

	return servicesAt, modelsAt, nil
}

// adopt probes the processes that an earlier Run left, and ends those that have no record
// any more because another control process replaced them; mu is held.
func (r *Runner) adopt() {
	for id, s := range r.services {
		for iid, o := range s.observed {
			switch _, recorded := s.records[iid]; {
			case o.Ended:
			case !recorded:
				r.launcher.Stop(iid, r.cfg.Policy.Grace)
			case o.Address != "":
				r.probe(id, iid, o)
			}
		}
	}
}

// Abandon forgets every process, for another control process of this machine that adopts them. If
// this one leads again, it adopts what is there then. Call it while Run is not running.
func (r *Runner) Abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()

	for _, s := range r.services {
		clear(s.observed)
	}
}

// Counts tells how many services have each status and how many instances each state.
func (r *Runner) Counts() (services map[spec.ServiceStatus]int, instances map[spec.InstanceState]int) {
	services, instances = map[spec.ServiceStatus]int{}, map[spec.InstanceState]int{}

	r.mu.Lock()
	defer r.mu.Unlock()

	for _, s := range r.services {
		if s.state.Value.Status != "" {
			services[s.state.Value.Status]++
		}

		for _, inst := range s.records {
			instances[inst.State]++
		}
	}

	return services, instances
}

// Release drains all instances without closing the launcher: another control process leads
// now and has its own. They are started again if this one leads once more.
func (r *Runner) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()

	for _, s := range r.services {
		for iid, o := range s.observed {
			if !o.Ended {
				r.launcher.Stop(iid, r.cfg.Policy.Grace)
			}
		}
	}
}

// service returns the entry of id, a new one if need be; mu is held.
func (r *Runner) service(id string) *service {
	s := r.services[id]
	if s == nil {
		s = &service{records: map[string]spec.Instance{}, observed: map[string]*observed{}}
		r.services[id] = s
	}

	return s
}

// follow takes over changes until ctx ends.
func (r *Runner) follow(ctx context.Context, servicesAt, modelsAt int64) {
	services := r.store.Services.Watch(ctx, servicesAt)
	models := r.store.Models.Watch(ctx, modelsAt)

	for services != nil || models != nil {
		select {
		case c, ok := <-services:
			if !ok {
				services = nil

				continue
			}

			r.serviceChanged(c)
		case c, ok := <-models:
			if !ok {
				models = nil

				continue
			}

			r.modelChanged(c)
		}
	}
}

func (r *Runner) serviceChanged(c store.Change[spec.Service]) {
	r.mu.Lock()
	defer r.mu.Unlock()

	switch c.Type {
	case store.ChangePut:
		r.desire(c.Item)
	case store.ChangeDelete:
		r.vanish(c.Item.ID)
	case store.ChangeReset:
		there := map[string]bool{}

		for _, item := range c.Items {
			there[item.ID] = true

			r.desire(item)
		}

		for id := range r.services {
			if !there[id] {
				r.vanish(id)
			}
		}
	}
}

// desire takes over a service document; mu is held.
func (r *Runner) desire(item store.Item[spec.Service]) {
	s := r.service(item.ID)
	if !s.exists || item.Revision > s.desired.Revision {
		s.desired, s.exists = item, true
	}

	r.queue.add(item.ID)
}

// vanish handles a service whose document is gone: what is left of it goes; mu is held.
func (r *Runner) vanish(id string) {
	if s, ok := r.services[id]; ok {
		s.exists = false

		r.queue.add(id)
	}
}

func (r *Runner) modelChanged(c store.Change[spec.Model]) {
	r.mu.Lock()
	defer r.mu.Unlock()

	switch c.Type {
	case store.ChangePut:
		r.models[c.Item.ID] = &c.Item.Value
	case store.ChangeDelete:
		delete(r.models, c.Item.ID)
	case store.ChangeReset:
		clear(r.models)

		for i := range c.Items {
			r.models[c.Items[i].ID] = &c.Items[i].Value
		}
	}
}

// work steps services until ctx ends.
func (r *Runner) work(ctx context.Context) {
	for {
		id, ok := r.queue.next(ctx)
		if !ok {
			return
		}

		start := time.Now()

		changed, err := r.step(ctx, id)
		if err != nil && ctx.Err() == nil {
			r.retry(id, err)
		}

		if f := r.cfg.Hooks.Step; f != nil && (changed || err != nil) {
			f(id, time.Since(start), err)
		}

		r.queue.done(id)
	}
}

// The wait after a step that could not be written doubles between these bounds.
const (
	minRetry = 250 * time.Millisecond
	maxRetry = 10 * time.Second
)

// retry reads the records again, since somebody else may have written them, and tries anew.
func (r *Runner) retry(id string, err error) {
	if !errors.Is(err, store.ErrConflict) {
		r.log.Warn("step of a service failed", slog.String("service_id", id), slog.Any("error", err))
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	s := r.service(id)
	s.stale = true
	s.retry = min(max(2*s.retry, minRetry), maxRetry)
	r.queue.addAt(id, r.cfg.Wall().Add(s.retry))
}
