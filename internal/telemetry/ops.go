package telemetry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
)

// OpsConfig is the configuration of the operations listener.
type OpsConfig struct {
	// Listen is host:port; port 0 takes any.
	Listen string `yaml:"listen"`
	// AllowRemote permits an address that is not loopback. Profiles and metrics tell a lot, so
	// that this is a decision, not a default.
	AllowRemote bool `yaml:"allow_remote"`
	// NoProfiles turns /debug/pprof off.
	NoProfiles bool `yaml:"no_profiles"`
}

// Validate reports every mistake at once.
func (c *OpsConfig) Validate() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return config.At("listen", "%q is not host:port", c.Listen)
	}

	if !c.AllowRemote && !Loopback(host) {
		return config.At("listen", "%q is reachable from outside; set allow_remote to permit that", c.Listen)
	}

	return nil
}

// Loopback reports whether host can only be reached from this machine.
func Loopback(host string) bool {
	if host == "localhost" {
		return true
	}

	a, err := netip.ParseAddr(host)

	return err == nil && a.Unmap().IsLoopback()
}

// Health is what /health tells.
type Health struct {
	Ready bool
	// State is a word such as "starting", "ready" or "draining"; Reason, if any, is for people.
	State, Reason string
}

// Ops is the operations listener. ListenOps opens it, Run serves it once.
type Ops struct {
	ln  net.Listener
	srv *http.Server
	tls bool
}

// ListenOps opens the listener. conf may be nil for clear text; health is asked for each /health.
func ListenOps(ctx context.Context, cfg OpsConfig, reg *Registry, health func() Health, opts ...OpsOption) (*Ops, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}

	var lc net.ListenConfig

	ln, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for operations: %w", err)
	}

	o := &Ops{ln: ln, srv: &http.Server{
		Handler:           opsHandler(cfg, reg, health),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		// No write timeout: a CPU profile takes as long as its caller asked for.
	}}

	for _, f := range opts {
		f(o)
	}

	return o, nil
}

// OpsOption changes the operations listener.
type OpsOption func(o *Ops)

// WithTLS serves TLS with conf.
func WithTLS(conf *tls.Config) OpsOption {
	return func(o *Ops) {
		o.ln = tls.NewListener(o.ln, conf)
		o.tls = true
	}
}

// WithLog takes what net/http has to say.
func WithLog(log *slog.Logger) OpsOption {
	return func(o *Ops) { o.srv.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug) }
}

// Addr is the address with its real port.
func (o *Ops) Addr() string { return o.ln.Addr().String() }

// URL is the base URL.
func (o *Ops) URL() string {
	if o.tls {
		return "https://" + o.Addr()
	}

	return "http://" + o.Addr()
}

// Run serves until ctx ends.
func (o *Ops) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = o.srv.Close() }) // scrapes may be cut
	defer stop()

	if err := o.srv.Serve(o.ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("operations listener: %w", err)
	}

	return nil
}

// Close closes a listener that was never run.
func (o *Ops) Close() error {
	if err := o.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("operations listener: %w", err)
	}

	return nil
}

func opsHandler(cfg OpsConfig, reg *Registry, health func() Health) http.Handler {
	mux := http.NewServeMux()

	mux.Handle("GET /metrics", reg.Handler())
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		h := health()
		text := map[bool]string{true: "true", false: "false"}[h.Ready]

		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")

		if !h.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}

		// The body is small: a failure is the client's.
		_ = json.NewEncoder(w).Encode(struct {
			Health string `json:"health"`
			State  string `json:"state,omitempty"`
			Reason string `json:"reason,omitempty"`
		}{text, h.State, h.Reason})
	})

	if !cfg.NoProfiles {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}
