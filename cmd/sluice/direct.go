package main

import (
	"errors"
	"net"
	"path/filepath"

	"github.com/sluice-gateway/sluice/control/launch"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/direct"
)

// directSettings are about the doors that instances open for callers that skip the gateway, for services
// whose direct_channel is on.
type directSettings struct {
	// Listen is the address of the interface; default 127.0.0.1.
	Listen string `yaml:"listen"`
	// Advertise is the address that callers are told; default the same. Needed where Listen is 0.0.0.0 or ::.
	Advertise string `yaml:"advertise"`
	// Cert and Key turn TLS on; ClientCA makes certificates of clients compulsory.
	Cert     string `yaml:"cert"`
	Key      string `yaml:"key"`
	ClientCA string `yaml:"client_ca"`
}

func (d *directSettings) launch() launch.DirectConfig {
	return launch.DirectConfig{Host: d.Listen, Advertise: d.Advertise, TLS: d.files()}
}

// files are absolute: engines run elsewhere.
func (d *directSettings) files() direct.Files {
	f := direct.Files{Cert: d.Cert, Key: d.Key, ClientCA: d.ClientCA}

	for _, path := range []*string{&f.Cert, &f.Key, &f.ClientCA} {
		if abs, err := filepath.Abs(*path); err == nil && *path != "" {
			*path = abs
		}
	}

	return f
}

func (d *directSettings) validate() error {
	var errs []error

	ip := net.ParseIP(d.Listen)
	if d.Listen != "" && ip == nil {
		errs = append(errs, config.At("listen", "%q is not an IP address", d.Listen))
	}

	if ip != nil && ip.IsUnspecified() && d.Advertise == "" {
		errs = append(errs, config.At("advertise", "is required where listen is %s", d.Listen))
	}

	if d.Advertise != "" && net.ParseIP(d.Advertise) == nil {
		errs = append(errs, config.At("advertise", "%q is not an IP address", d.Advertise))
	}

	if (d.Cert == "") != (d.Key == "") {
		errs = append(errs, config.At("cert", "cert and key belong together"))
	}

	if d.ClientCA != "" && d.Cert == "" {
		errs = append(errs, config.At("client_ca", "needs cert and key"))
	}

	if len(errs) == 0 {
		if _, err := d.files().Config(); err != nil {
			errs = append(errs, config.At("cert", "%v", err))
		}
	}

	return errors.Join(errs...)
}
