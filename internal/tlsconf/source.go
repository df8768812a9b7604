package tlsconf

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const defaultReload = 10 * time.Second

// Source gives the certificates of a Config, as they are on disk now.
type Source struct {
	cfg   Config
	log   *slog.Logger
	files []Files

	mu    sync.Mutex // one load at a time; guards stamp
	stamp []stamp

	set atomic.Pointer[certSet]
}

// stamp tells whether a file changed.
type stamp struct {
	size int64
	time time.Time
}

// certSet is one generation of certificates.
type certSet struct {
	first    *tls.Certificate
	byName   map[string]*tls.Certificate // exact names in lower case
	wildcard map[string]*tls.Certificate // "*.example.com" as "example.com"
	clients  *x509.CertPool              // nil asks clients for nothing
}

// New makes the self-signed certificate if one is needed, and loads all.
func New(cfg Config, log *slog.Logger) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err //nolint:wrapcheck // carries its paths
	}

	s := &Source{cfg: cfg, log: log, files: cfg.Certificates}

	if len(s.files) == 0 {
		f := Files{Cert: filepath.Join(cfg.SelfSigned.Dir, "tls.crt"), Key: filepath.Join(cfg.SelfSigned.Dir, "tls.key")}

		made, err := ensureSelfSigned(f, cfg.SelfSigned.Hosts, time.Now())
		if err != nil {
			return nil, err
		}

		if made {
			log.Info("made a self-signed certificate", slog.String("cert", f.Cert))
		}

		s.files = []Files{f}
	}

	return s, s.Reload()
}

// Reload loads all files. After a failure the certificates loaded before stay in use.
func (s *Source) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()

	now, err := s.stamps()
	if err != nil {
		return err
	}

	set := &certSet{byName: make(map[string]*tls.Certificate), wildcard: make(map[string]*tls.Certificate)}

	for _, f := range s.files {
		c, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return fmt.Errorf("load certificate %s with key %s: %w", f.Cert, f.Key, err)
		}

		if err := set.add(&c); err != nil {
			return fmt.Errorf("load certificate %s: %w", f.Cert, err)
		}
	}

	if s.cfg.ClientCA != "" {
		if set.clients, err = loadPool(s.cfg.ClientCA); err != nil {
			return err
		}
	}

	s.set.Store(set)
	s.stamp = now

	return nil
}

// loadPool reads the authorities of clients.
func loadPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("load the authorities of clients: %w", err)
	}

	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load the authorities of clients: %s holds no certificate", file)
	}

	return pool, nil
}

func (set *certSet) add(c *tls.Certificate) error {
	if c.Leaf == nil {
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			return fmt.Errorf("parse: %w", err)
		}

		c.Leaf = leaf
	}

	if now := time.Now(); now.After(c.Leaf.NotAfter) {
		return fmt.Errorf("expired on %s", c.Leaf.NotAfter.Format(time.DateOnly))
	}

	if set.first == nil {
		set.first = c
	}

	for _, name := range c.Leaf.DNSNames {
		name = strings.ToLower(name)
		names := set.byName

		if rest, ok := strings.CutPrefix(name, "*."); ok {
			name, names = rest, set.wildcard
		}

		if names[name] == nil {
			names[name] = c
		}
	}

	return nil
}

// pick chooses by server name: the exact one, a wildcard for one label, else the first.
func (set *certSet) pick(name string) *tls.Certificate {
	name = strings.ToLower(strings.TrimSuffix(name, "."))

	if c := set.byName[name]; c != nil {
		return c
	}

	if _, parent, ok := strings.Cut(name, "."); ok {
		if c := set.wildcard[parent]; c != nil {
			return c
		}
	}

	return set.first
}

// Config returns a configuration that always serves the certificates of the Source.
func (s *Source) Config() *tls.Config {
	conf := &tls.Config{
		MinVersion: s.minVersion(),
		// Of TLS 1.2 only what has forward secrecy and authenticated encryption; TLS 1.3 has nothing else.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.set.Load().pick(h.ServerName), nil
		},
	}

	if s.cfg.ClientCA == "" {
		return conf
	}

	// Tickets would let in clients of an authority that is trusted no longer; without GetConfigForClient
	// nobody comes in.
	conf.SessionTicketsDisabled = true
	conf.ClientAuth, conf.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := conf.Clone()
		now.GetConfigForClient, now.ClientCAs = nil, s.set.Load().clients

		return now, nil
	}

	return conf
}

func (s *Source) minVersion() uint16 {
	if s.cfg.MinVersion == "1.3" {
		return tls.VersionTLS13
	}

	return tls.VersionTLS12
}

// Expires is when the first certificate to expire does.
func (s *Source) Expires() time.Time {
	set := s.set.Load()
	first := set.first.Leaf.NotAfter

	for _, names := range []map[string]*tls.Certificate{set.byName, set.wildcard} {
		for _, c := range names {
			if c.Leaf.NotAfter.Before(first) {
				first = c.Leaf.NotAfter
			}
		}
	}

	return first
}

// Run loads changed files until ctx ends. A change that cannot be loaded is logged once and the
// old certificates stay; it is tried again with the next change.
func (s *Source) Run(ctx context.Context) error {
	every := s.cfg.ReloadEvery.D()
	if every <= 0 {
		every = defaultReload
	}

	tick := time.NewTicker(every)
	defer tick.Stop()

	var failed []stamp

	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			failed = s.check(failed)
		}
	}
}

// check reloads if files changed since the last load and since the last failure, which it returns.
func (s *Source) check(failed []stamp) []stamp {
	if len(s.cfg.Certificates) == 0 {
		if _, err := ensureSelfSigned(s.files[0], s.cfg.SelfSigned.Hosts, time.Now()); err != nil {
			s.log.Warn("cannot renew the self-signed certificate", slog.String("err", err.Error()))
		}
	}

	now, err := s.stamps()
	if err != nil || s.loaded(now) || same(now, failed) {
		return failed
	}

	if err := s.Reload(); err != nil {
		s.log.Error("keeping the old certificates", slog.String("err", err.Error()))

		return now
	}

	s.log.Info("loaded new certificates", slog.String("expires", s.Expires().Format(time.RFC3339)))

	return nil
}

func (s *Source) loaded(now []stamp) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	return same(now, s.stamp)
}

func same(a, b []stamp) bool {
	if len(a) != len(b) {
		return false
	}

	for i := range a {
		if a[i].size != b[i].size || !a[i].time.Equal(b[i].time) {
			return false
		}
	}

	return true
}

func (s *Source) stamps() ([]stamp, error) {
	var errs []error

	names := make([]string, 0, 2*len(s.files)+1)
	out := make([]stamp, 0, cap(names))

	for _, f := range s.files {
		names = append(names, f.Cert, f.Key)
	}

	if s.cfg.ClientCA != "" {
		names = append(names, s.cfg.ClientCA)
	}

	for _, name := range names {
		// Stat follows links: mounted secrets are replaced by turning one.
		fi, err := os.Stat(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("look at certificate: %w", err))

			continue
		}

		out = append(out, stamp{fi.Size(), fi.ModTime()})
	}

	return out, errors.Join(errs...)
}
