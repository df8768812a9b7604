package launch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/internal/direct"
	"github.com/sluice-gateway/sluice/spec"
)

// ErrClosed is returned by Start once Local is shutting down.
var ErrClosed = errors.New("launcher is closed")

// Config of Local.
type Config struct {
	// Runtime is the path of the sluice-runtime binary.
	Runtime string
	// RuntimeArgs are put behind the standard arguments of every worker.
	RuntimeArgs []string
	// Supervisor is the command line that runs Supervise for custom engines. Default:
	// this executable with the argument "supervise".
	Supervisor []string
	// LogDir receives a bounded log file for each instance; empty turns files off.
	LogDir string
	// MaxLogBytes bounds a log file; one older file of the same size is kept. Default 4 MiB.
	MaxLogBytes int64
	// ParallelStarts bounds how many processes are between fork and listening. Default:
	// twice the number of CPUs.
	ParallelStarts int
	// StartTimeout bounds the time from fork to listening. Default 30 s.
	StartTimeout time.Duration
	// Env is added to the allow-listed environment of every process, as KEY=VALUE.
	Env []string
	// ListenHost is the interface that workers listen on, Advertise the address that gateways are told of
	// them. Default 127.0.0.1, and ListenHost.
	ListenHost, Advertise string
	// Certify, when set, makes the certificate of an instance with its key, and the authorities that its
	// clients must come from, all as PEM: a worker then lets in nobody else. Nil means no TLS.
	Certify func(instance string) (pair, clients []byte, err error)
	// Packages is where this machine keeps the package with a tree hash. A package that is
	// not there is looked for where its model says. Nil means always there.
	Packages func(tree string) string
	// Direct is about the doors past the gateway.
	Direct DirectConfig
	// Orphan is for how long a custom engine may outlive this process without anybody who adopts it; 0
	// ends it with us. Workers are told by RuntimeArgs.
	Orphan time.Duration
	// OrphanGrace is what it gets then to finish. Default 60 s.
	OrphanGrace time.Duration
}

// DirectConfig is how instances open doors for callers that skip the gateway.
type DirectConfig struct {
	// Host is the address of the interface to listen on; default 127.0.0.1.
	Host string
	// Advertise is the address that callers are told; default Host.
	Advertise string
	// TLS of the doors; without a certificate they speak in the clear.
	TLS direct.Files
}

// packageDir is the directory of a model's files on this machine.
func (c *Config) packageDir(ref *spec.PackageRef) string {
	if c.Packages == nil || ref.TreeSHA256 == "" {
		return ref.Dir
	}

	dir := c.Packages(ref.TreeSHA256)
	if _, err := os.Stat(dir); err != nil {
		return ref.Dir
	}

	return dir
}

func (c *Config) ensureDefaults() error {
	if c.MaxLogBytes <= 0 {
		c.MaxLogBytes = 4 << 20
	}

	if c.ParallelStarts <= 0 {
		c.ParallelStarts = 2 * runtime.NumCPU()
	}

	if c.StartTimeout <= 0 {
		c.StartTimeout = 30 * time.Second
	}

	if c.OrphanGrace <= 0 {
		c.OrphanGrace = 60 * time.Second
	}

	if c.ListenHost == "" {
		c.ListenHost = "127.0.0.1"
	}

	if c.Advertise == "" {
		c.Advertise = c.ListenHost
	}

	if c.Direct.Host == "" {
		c.Direct.Host = "127.0.0.1"
	}

	if c.Direct.Advertise == "" {
		c.Direct.Advertise = c.Direct.Host
	}

	if len(c.Supervisor) == 0 {
		exe, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find own executable: %w", err)
		}

		c.Supervisor = []string{exe, "supervise"}
	}

	return nil
}

// Task is one instance to run.
type Task struct {
	ID        string
	ServiceID string
	Model     *spec.Model
	// Envs of the service's entry.
	Envs map[string]string
	// MemoryLimit in bytes of all processes of the instance together; 0 means none. An
	// instance that exceeds it is killed.
	MemoryLimit int64
	// CPULimit is how many processors a custom engine may use, rounded up; 0 means all.
	CPULimit float64
	// Direct, when set, opens a door past the gateway.
	Direct *spec.Direct
	// Notify hears every change of phase.
	Notify func(Status)
}

// Phase of a process.
type Phase uint8

// Phases, in order.
const (
	PhaseStarting  Phase = iota // waiting for its turn, or forked and not yet listening
	PhaseListening              // has an address; not necessarily able to serve
	PhaseEnded                  // gone; Exit tells why
)

// Status of one process.
type Status struct {
	ID    string
	Phase Phase
	PID   int
	// Network, Address and Scheme of its HTTP server; Link of its link listener.
	Network string
	Address string
	Scheme  string
	Link    string
	// Direct is where callers that skip the gateway reach it, DirectGRPC its gRPC door: host:port.
	Direct, DirectGRPC, DirectScheme string
	// Dir and Env of a custom engine, for health checks that run a command.
	Dir string
	Env []string
	// User that a custom engine runs as; nil is ours.
	User *syscall.Credential
	// Exit is set with PhaseEnded.
	Exit *Exit
}

// Exit tells how a process ended.
type Exit struct {
	// Code is the exit status; -1 after a signal or when it never started.
	Code int
	// Signal is the name of the signal that ended it.
	Signal string
	// Requested is true when Stop, Kill, Shutdown or Close asked for it.
	Requested bool
	// Forced is true when we killed it: its grace was over, or it never listened.
	Forced bool
	// Reason is what it said last, or why it could not be started.
	Reason string
	// Adopted is true when another process had started it: how it ended is not known.
	Adopted bool
	// Permanent is true when the package cannot be loaded: trying again gives the same.
	Permanent bool
}

// String describes the exit in one line.
func (e *Exit) String() string {
	var how string

	switch {
	case e.Adopted:
		how = "the process of an earlier control process"
	case e.Signal == "SIGKILL" && !e.Requested && !e.Forced:
		how = "killed by SIGKILL (by somebody else, or out of memory)"
	case e.Signal != "":
		how = "killed by " + e.Signal
	case e.Code >= 0:
		how = fmt.Sprintf("exit status %d", e.Code)
	default:
		how = "could not be started"
	}

	if e.Reason != "" {
		return how + ": " + e.Reason
	}

	return how
}

// handle is a process of this machine.
type handle interface {
	stop(grace time.Duration)
	pid() int
	done() <-chan struct{} // closed when nothing is done about it any more
}

// Local runs instances as processes of this machine. Of its locks, mu comes before that of a process.
type Local struct {
	cfg   Config
	log   *slog.Logger
	slots chan struct{}
	wg    sync.WaitGroup

	// Workers read lifeline; when we die, the kernel closes lifelineWrite.
	lifeline      *os.File
	lifelineWrite *os.File

	mu     sync.Mutex // guards procs, closed, ports, cpus, released
	procs  map[string]handle
	ports  map[int]struct{}
	cpus   cpuSet
	closed bool
	// released is true once workers were left to another control process.
	released bool
}

// NewLocal prepares a launcher; it starts nothing.
func NewLocal(cfg Config, log *slog.Logger) (*Local, error) {
	if err := cfg.ensureDefaults(); err != nil {
		return nil, err
	}

	if cfg.LogDir != "" {
		if err := os.MkdirAll(cfg.LogDir, 0o750); err != nil {
			return nil, fmt.Errorf("create log directory: %w", err)
		}
	}

	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("create lifeline: %w", err)
	}

	return &Local{
		cfg: cfg, log: log,
		slots:    make(chan struct{}, cfg.ParallelStarts),
		lifeline: r, lifelineWrite: w,
		procs: map[string]handle{}, ports: map[int]struct{}{}, cpus: newCPUSet(),
	}, nil
}

// Start begins to run t and returns at once. Starting an id that runs already does
// nothing, so that a caller who is not sure may ask again.
func (l *Local) Start(t Task) error {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.closed {
		return ErrClosed
	}

	if _, ok := l.procs[t.ID]; ok {
		return nil
	}

	p := newProcess(l, t)
	l.procs[t.ID] = p
	l.wg.Go(p.run)

	return nil
}

// Stop asks the process to drain and kills it after grace. It returns at once; an
// unknown id is fine. Only the first call sends the signal, since a second one means
// "at once" to a worker; a later call may only shorten the grace.
func (l *Local) Stop(id string, grace time.Duration) {
	if p := l.find(id); p != nil {
		p.stop(grace)
	}
}

// Drain stops every process that runs now, as Stop does; new ones may start.
func (l *Local) Drain(grace time.Duration) {
	l.mu.Lock()

	all := make([]handle, 0, len(l.procs))
	for _, p := range l.procs {
		all = append(all, p)
	}
	l.mu.Unlock()

	for _, p := range all {
		p.stop(grace)
	}
}

// Kill ends the process and its group at once.
func (l *Local) Kill(id string) {
	if p := l.find(id); p != nil {
		p.stop(0)
	}
}

// Running reports whether id has a process, or waits for one.
func (l *Local) Running(id string) bool { return l.find(id) != nil }

// Count is the number of processes.
func (l *Local) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()

	return len(l.procs)
}

// Shutdown drains every process at once, kills what is left when ctx or grace ends, and
// returns when all have ended.
func (l *Local) Shutdown(ctx context.Context, grace time.Duration) error {
	all := l.close()
	for _, p := range all {
		p.stop(grace)
	}

	done := make(chan struct{})
	go func() {
		defer close(done)
		l.await(all)
	}()

	var err error

	select {
	case <-done:
	case <-ctx.Done():
		err = fmt.Errorf("drain workers: %w", ctx.Err())

		for _, p := range all {
			p.stop(0)
		}

		<-done
	}

	l.closeLifeline()

	return err
}

// Close kills every process and waits for their end.
func (l *Local) Close() error {
	all := l.close()
	for _, p := range all {
		p.stop(0)
	}

	l.await(all)
	l.closeLifeline()

	return nil
}

// LogFile is the path of the instance's log.
func (l *Local) LogFile(serviceID, id string) string {
	return filepath.Join(l.cfg.LogDir, serviceID, id+".log")
}

// await waits for the end of what runs, but not of what was left to others.
func (l *Local) await(all []handle) {
	for _, p := range all {
		<-p.done()
	}

	if !l.Released() {
		l.wg.Wait()
	}
}

func (l *Local) closeLifeline() {
	// Nobody reads or writes them; a second Close returns ErrClosed, which is fine.
	_ = l.lifelineWrite.Close()
	_ = l.lifeline.Close()
}

// close refuses new tasks and returns the processes that run.
func (l *Local) close() []handle {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.closed = true

	all := make([]handle, 0, len(l.procs))
	for _, p := range l.procs {
		all = append(all, p)
	}

	return all
}

func (l *Local) find(id string) handle {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.procs[id]
}

func (l *Local) forget(p *process) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.procs[p.task.ID] == p { // not if it was released
		delete(l.procs, p.task.ID)
	}

	delete(l.ports, p.port)
	l.cpus.give(p.cpus)
}
