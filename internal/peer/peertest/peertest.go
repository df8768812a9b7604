// Package peertest helps to test what talks with the certificates of package peer.
package peertest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/sluice-gateway/sluice/internal/peer"
)

// Authority returns the authority of key rings that these bytes stand for.
func Authority(tb testing.TB, ring ...byte) *peer.Authority {
	tb.Helper()

	secrets := make([][]byte, 0, len(ring))
	for _, b := range ring {
		secrets = append(secrets, bytes.Repeat([]byte{b}, 32))
	}

	a, err := peer.New(secrets)
	if err != nil {
		tb.Fatal(err)
	}

	return a
}

// Worker returns the configuration of the worker of an instance, made as a worker makes it: from PEM.
func Worker(tb testing.TB, a *peer.Authority, instance string) *tls.Config {
	tb.Helper()

	pair, clients, err := a.Worker(instance)
	if err != nil {
		tb.Fatal(err)
	}

	cert, err := tls.X509KeyPair(pair, pair)
	if err != nil {
		tb.Fatal(err)
	}

	conf := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool(),
	}
	if !conf.ClientCAs.AppendCertsFromPEM(clients) {
		tb.Fatal("there is no authority of clients")
	}

	return conf
}
