package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/peer"
	"github.com/sluice-gateway/sluice/internal/secretbox"
)

// authority is that of the certificates between gateways, control and workers: who has the key ring has it.
func authority(ring *secretbox.Keyring) (*peer.Authority, error) {
	secrets, err := ring.Derive(peer.Purpose)
	if err != nil {
		return nil, fmt.Errorf("prepare certificates of workers: %w", err)
	}

	a, err := peer.New(secrets)
	if err != nil {
		return nil, fmt.Errorf("prepare certificates of workers: %w", err)
	}

	return a, nil
}

// link is where workers listen for small calls: on sockets of this machine, or where other machines reach them.
func (r *runtimeSettings) link(sockets string) string {
	if r.Listen == "" {
		return "unix:" + sockets + "/"
	}

	return net.JoinHostPort(r.Listen, "0")
}

// certify makes certificates for workers that other machines reach; nil if there are none.
func (r *runtimeSettings) certify(a *peer.Authority) func(string) ([]byte, []byte, error) {
	if r.Listen == "" {
		return nil
	}

	return a.Worker
}

// validateListen checks where workers listen.
func (r *runtimeSettings) validateListen() error {
	var errs []error

	ip := net.ParseIP(r.Listen)
	if r.Listen != "" && ip == nil {
		errs = append(errs, config.At("listen", "%q is not an IP address", r.Listen))
	}

	if ip != nil && ip.IsUnspecified() && r.Advertise == "" {
		errs = append(errs, config.At("advertise", "is required where listen is %s", r.Listen))
	}

	if a := net.ParseIP(r.Advertise); r.Advertise != "" && (a == nil || a.IsUnspecified()) {
		errs = append(errs, config.At("advertise", "%q is not the IP address of a machine", r.Advertise))
	}

	if r.Advertise != "" && r.Listen == "" {
		errs = append(errs, config.At("advertise", "needs listen"))
	}

	return errors.Join(errs...)
}
