package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/tlsconf"
)

// settings is the static configuration of `sluice serve`.
type settings struct {
	// DataDir holds all state. Relative to the working directory.
	DataDir string `yaml:"data_dir"`
	// Keyring holds the keys that secrets are sealed with; default: keyring in the data directory, made
	// at the first start. Processes that share an etcd share the keyring.
	Keyring string `yaml:"keyring"`
	// Etcd is the state. Without endpoints this process runs its own, for itself alone.
	Etcd etcdSettings `yaml:"etcd"`
	// EdgeURL is what services show as their address; default: this process's own door.
	EdgeURL string      `yaml:"edge_url"`
	Log     logSettings `yaml:"log"`
	Edge    edge.Config `yaml:"edge"`
	// TLS of the HTTPS door, and of control and ops where their tls is true.
	TLS     tlsconf.Config  `yaml:"tls"`
	Control controlSettings `yaml:"control"`
	Ops     opsSettings     `yaml:"ops"`
	Runtime runtimeSettings `yaml:"runtime"`
	Auth    authSettings    `yaml:"auth"`
	// Admission and Routing are what holds for all services, or for those that say nothing else.
	Admission admissionSettings `yaml:"admission"`
	Routing   routingSettings   `yaml:"routing"`
	Models    modelSettings     `yaml:"models"`
	// Deploy lists services that are made at start unless a service of that name exists.
	Deploy []deploySettings `yaml:"deploy"`
	// AllowDamaged starts although the package of a service is damaged; a flag, not a key.
	AllowDamaged bool `yaml:"-"`
}

type logSettings struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // json, text
}

// controlSettings is about the management API.
type controlSettings struct {
	Address string `yaml:"address"`
	TLS     bool   `yaml:"tls"`
	// AllowRemote permits an address that is not loopback without TLS.
	AllowRemote bool `yaml:"allow_remote"`
}

type opsSettings struct {
	Address     string `yaml:"address"`
	TLS         bool   `yaml:"tls"`
	AllowRemote bool   `yaml:"allow_remote"`
	NoProfiles  bool   `yaml:"no_profiles"`
}

func (o *opsSettings) ops() telemetry.OpsConfig {
	return telemetry.OpsConfig{Listen: o.Address, AllowRemote: o.AllowRemote, NoProfiles: o.NoProfiles}
}

// etcdSettings tell how to reach an external etcd.
type etcdSettings struct {
	Endpoints []string `yaml:"endpoints"` // https://host:2379
	Prefix    string   `yaml:"prefix"`    // of all keys; default /sluice/v1/
	Username  string   `yaml:"username"`
	// PasswordFile holds the password alone.
	PasswordFile string `yaml:"password_file"`
	CACert       string `yaml:"ca_cert"`
	Cert         string `yaml:"cert"`
	Key          string `yaml:"key"`
}

func (e *etcdSettings) validate() error {
	var errs []error

	for i, ep := range e.Endpoints {
		u, err := url.Parse(ep)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			errs = append(errs, config.At(fmt.Sprintf("endpoints[%d]", i), "%q is not a URL such as https://host:2379", ep))
		}
	}

	if (e.Cert == "") != (e.Key == "") {
		errs = append(errs, config.At("cert", "cert and key belong together"))
	}

	if (e.Username == "") != (e.PasswordFile == "") {
		errs = append(errs, config.At("username", "username and password_file belong together"))
	}

	return errors.Join(errs...)
}

// runtimeSettings is about the workers that this process starts.
type runtimeSettings struct {
	// Binary of sluice-runtime; default: beside this executable.
	Binary string `yaml:"binary"`
	// Listen is the address of the interface on which workers serve gateways of other machines, which prove
	// themselves by certificates made from the key ring. Empty: they serve this machine alone, on Unix sockets.
	Listen string `yaml:"listen"`
	// Advertise is the address that gateways are told; default the same. Needed where Listen is 0.0.0.0 or ::.
	Advertise string `yaml:"advertise"`
	// DrainDelay is how long a worker keeps serving after SIGTERM before it stops accepting.
	DrainDelay config.Duration `yaml:"drain_delay"`
	// Grace is how long a worker may take in all.
	Grace config.Duration `yaml:"grace"`
	// Orphan is how long workers of the role control serve on after it is gone, for another control process
	// of the machine to take over.
	Orphan config.Duration `yaml:"orphan"`
	// Direct is about the doors of services that let callers skip the gateway.
	Direct directSettings `yaml:"direct"`
}

// deploySettings is a model and a service of it.
type deploySettings struct {
	Service   string `yaml:"service"`
	Model     string `yaml:"model"`
	Version   string `yaml:"version"`
	Source    string `yaml:"source"` // directory; relative to the configuration file
	Instances int    `yaml:"instances"`
}

func defaultSettings() settings {
	s := settings{
		DataDir: "data",
		Log:     logSettings{Level: "info", Format: "json"},
		Edge:    edge.Defaults(),
		Control: controlSettings{Address: "127.0.0.1:8081"},
		Ops:     opsSettings{Address: "127.0.0.1:9090"},
		Runtime: runtimeSettings{DrainDelay: config.Duration(1e9), Grace: config.Duration(60e9), Orphan: config.Duration(600e9)},

		Auth: defaultAuth(), Admission: defaultAdmission(), Routing: defaultRouting(),
	}
	s.Edge.HTTP, s.Edge.HTTPS = "127.0.0.1:8080", "127.0.0.1:8443"

	return s
}

// Validate implements config.Validator.
func (s *settings) Validate() error {
	var errs []error

	add := func(ok bool, path, format string, args ...any) {
		if !ok {
			errs = append(errs, config.At(path, format, args...))
		}
	}

	add(s.DataDir != "", "data_dir", "is required")
	add(slices.Contains([]string{"debug", "info", "warn", "error"}, s.Log.Level), "log.level", "%q is none of debug, info, warn, error", s.Log.Level)
	add(slices.Contains([]string{"json", "text"}, s.Log.Format), "log.format", "%q is neither json nor text", s.Log.Format)

	host, _, err := net.SplitHostPort(s.Control.Address)
	add(err == nil, "control.address", "%q is not host:port", s.Control.Address)
	add(err != nil || s.Control.TLS || s.Control.AllowRemote || telemetry.Loopback(host), "control.address",
		"%q is reachable from outside; set tls or allow_remote to permit that", s.Control.Address)

	ops := s.Ops.ops()
	for _, e := range config.Mistakes(config.Prefix("ops", ops.Validate())) {
		errs = append(errs, renamed(e, "ops.listen", "ops.address"))
	}

	tls := s.tls()
	errs = append(errs, config.Prefix("tls", tls.Validate()))

	add(s.Runtime.Orphan >= 0, "runtime.orphan", "must not be negative")
	add(s.Runtime.Grace > s.Runtime.DrainDelay, "runtime.grace", "must be longer than drain_delay")
	errs = append(errs, config.Prefix("runtime", s.Runtime.validateListen()))
	errs = append(errs, config.Prefix("runtime.direct", s.Runtime.Direct.validate()))

	for i, d := range s.Deploy {
		path := fmt.Sprintf("deploy[%d]", i)
		add(d.Service != "", path+".service", "is required")
		add(d.Model != "", path+".model", "is required")
		add(d.Source != "", path+".source", "is required")
		add(d.Instances >= 0 && d.Instances <= 128, path+".instances", "must be between 0 and 128")
	}

	errs = append(errs, config.Prefix("etcd", s.Etcd.validate()), config.Prefix("models", s.Models.validate()))
	errs = append(errs, config.Prefix("edge", s.Edge.Validate()), config.Prefix("auth", s.Auth.validate()), s.validateTraffic())

	return errors.Join(errs...)
}

// renamed gives a mistake the path under which the user wrote the key.
func renamed(err error, from, to string) error {
	var m *config.Mistake
	if errors.As(err, &m) && m.Path == from {
		c := *m
		c.Path = to

		return &c
	}

	return err
}

// tls is the TLS configuration with the place of a certificate of our own.
func (s *settings) tls() tlsconf.Config {
	c := s.TLS
	if c.SelfSigned.Dir == "" {
		c.SelfSigned.Dir = filepath.Join(s.DataDir, "tls")
	}

	return c
}

// load reads the file over the defaults; paths in it are relative to the file.
func (s *settings) load(path string) error {
	if path == "" {
		return s.Validate()
	}

	err := config.LoadFile(path, s)
	base := filepath.Dir(path)

	for i := range s.Deploy {
		s.Deploy[i].Source = relativeTo(base, s.Deploy[i].Source)

		if s.Deploy[i].Version == "" {
			s.Deploy[i].Version = "1.0.0"
		}

		if s.Deploy[i].Instances == 0 {
			s.Deploy[i].Instances = 1
		}
	}

	return err
}

// keyring is the file with the keys that secrets are sealed with.
func (s *settings) keyring() string {
	if s.Keyring != "" {
		return s.Keyring
	}

	return filepath.Join(s.DataDir, "keyring")
}

func relativeTo(base, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}

	return filepath.Join(base, path)
}

// runtimeBinary is the worker's executable: configured, from the environment, or beside this one.
func (s *settings) runtimeBinary() (string, error) {
	path := s.Runtime.Binary
	if path == "" {
		path = os.Getenv("SLUICE_RUNTIME")
	}

	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", fmt.Errorf("find sluice-runtime: %w", err)
		}

		path = filepath.Join(filepath.Dir(self), "sluice-runtime")
	}

	info, err := os.Stat(path) //nolint:gosec // the operator names the program
	if err != nil {
		return "", fmt.Errorf("find sluice-runtime (runtime.binary): %w", err)
	}

	if info.IsDir() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("runtime.binary: %s is not executable", path)
	}

	return path, nil
}
