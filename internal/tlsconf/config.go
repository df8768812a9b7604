package tlsconf

import (
	"errors"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/config"
)

// Config names certificates. Without any, a self-signed one is made.
type Config struct {
	// Certificates are PEM files. The first serves clients that send no or an unknown server name.
	Certificates []Files `yaml:"certificates"`
	// SelfSigned is for when Certificates is empty.
	SelfSigned SelfSigned `yaml:"self_signed"`
	// MinVersion is "1.2" (the default) or "1.3".
	MinVersion string `yaml:"min_version"`
	// ReloadEvery is how often the files are looked at; 0 means 10s.
	ReloadEvery config.Duration `yaml:"reload_every"`
	// ClientCA names a PEM file with the authorities that clients must have a certificate of; empty asks for none.
	// It is for doors between our own processes.
	ClientCA string `yaml:"-"`
}

// Files are one certificate chain and its key.
type Files struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// SelfSigned says what a certificate of our own is made for.
type SelfSigned struct {
	// Dir keeps it, so that it stays the same over restarts: tls.crt and tls.key.
	Dir string `yaml:"dir"`
	// Hosts are names and addresses beside localhost, the loopback addresses and the host name.
	Hosts []string `yaml:"hosts"`
}

// Validate reports every mistake at once.
func (c *Config) Validate() error {
	var errs []error

	for i, f := range c.Certificates {
		path := "certificates[" + strconv.Itoa(i) + "]"

		if f.Cert == "" {
			errs = append(errs, config.At(path+".cert", "must name a PEM file"))
		}

		if f.Key == "" {
			errs = append(errs, config.At(path+".key", "must name a PEM file"))
		}
	}

	if len(c.Certificates) == 0 && c.SelfSigned.Dir == "" {
		errs = append(errs, config.At("self_signed.dir", "is needed when no certificates are given"))
	}

	switch c.MinVersion {
	case "", "1.2", "1.3":
	default:
		errs = append(errs, config.At("min_version", "%q is neither 1.2 nor 1.3", c.MinVersion))
	}

	return errors.Join(errs...)
}
