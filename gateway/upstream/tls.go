package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/sluice-gateway/sluice/spec"
)

var errNoCertificates = errors.New("ca_pem holds no certificate")

// tlsFor is the TLS configuration towards an instance. A worker of ours and the gateway prove themselves to
// each other. An external engine is verified unless it is
// told otherwise, a custom one only if its package asks for it: engines make their own certificates.
func (cl *Client) tlsFor(h *host, v *spec.Version, in *spec.Instance) (*tls.Config, error) {
	e := in.Endpoint

	if v.Engine == spec.EngineONNX && e == nil && cl.cfg.Worker != nil {
		return cl.cfg.Worker(in.ID), nil
	}

	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if cl.cfg.TLS != nil {
		t = cl.cfg.TLS.Clone()
	} else {
		t.InsecureSkipVerify = !v.TLSVerify && (h.local() || v.Engine == spec.EngineCustom)
	}

	ca := v.CAPEM

	if e != nil {
		t.InsecureSkipVerify, ca = e.InsecureSkipVerify, e.CAPEM
	}

	if ca != "" {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, fmt.Errorf("TLS to %s: %w", h.address, errNoCertificates)
		}
	}

	if t.ServerName == "" {
		t.ServerName = "localhost"
		if name, _, err := net.SplitHostPort(h.address); err == nil {
			t.ServerName = name
		}
	}

	if e == nil && v.TLSVerify && h.local() && cl.cfg.TLS == nil {
		verifyLocal(t)
	}

	return t, nil
}

// verifyLocal lets the certificate of an engine on this machine name either its address or localhost.
func verifyLocal(t *tls.Config) {
	address, roots := t.ServerName, t.RootCAs
	t.InsecureSkipVerify = true // VerifyConnection does it all

	t.VerifyConnection = func(cs tls.ConnectionState) error {
		opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, c := range cs.PeerCertificates[1:] {
			opts.Intermediates.AddCert(c)
		}

		leaf := cs.PeerCertificates[0]
		if _, err := leaf.Verify(opts); err != nil {
			return fmt.Errorf("verify the engine's certificate: %w", err)
		}

		if err := leaf.VerifyHostname(address); err != nil && leaf.VerifyHostname("localhost") != nil {
			return fmt.Errorf("verify the engine's certificate: %w", err)
		}

		return nil
	}
}
