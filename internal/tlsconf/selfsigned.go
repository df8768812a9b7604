package tlsconf

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-gateway/sluice/internal/atomicfile"
)

const (
	selfSignedLife = 2 * 365 * 24 * time.Hour
	renewBefore    = 30 * 24 * time.Hour
	clockSkew      = time.Hour
	selfSignedName = "Sluice self-signed"
)

// ensureSelfSigned makes the certificate unless there is one that lasts and covers the hosts.
func ensureSelfSigned(f Files, hosts []string, now time.Time) (made bool, err error) {
	hosts = allHosts(hosts)

	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)

	switch {
	case err == nil && lasts(pair.Leaf, hosts, now):
		return false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !ours(f.Cert):
		// Somebody else's file may be there: say so instead of replacing it.
		return false, fmt.Errorf("self-signed certificate %s: %w; remove it to have a new one made", f.Cert, err)
	}

	if err := os.MkdirAll(filepath.Dir(f.Cert), 0o700); err != nil {
		return false, fmt.Errorf("self-signed certificate: %w", err)
	}

	cert, key, err := makeSelfSigned(hosts, now)
	if err != nil {
		return false, fmt.Errorf("self-signed certificate: %w", err)
	}

	// A crash between the two leaves a certificate of ours with the wrong key; the next start
	// makes both again.
	if err := atomicfile.Write(f.Key, key, 0o600); err != nil {
		return false, fmt.Errorf("self-signed certificate: %w", err)
	}

	if err := atomicfile.Write(f.Cert, cert, 0o644); err != nil {
		return false, fmt.Errorf("self-signed certificate: %w", err)
	}

	return true, nil
}

// ours reports whether the file holds a certificate made here.
func ours(file string) bool {
	raw, err := os.ReadFile(file)
	if err != nil {
		return false
	}

	block, _ := pem.Decode(raw)
	if block == nil {
		return false
	}

	leaf, err := x509.ParseCertificate(block.Bytes)

	return err == nil && leaf.Subject.CommonName == selfSignedName
}

func lasts(leaf *x509.Certificate, hosts []string, now time.Time) bool {
	if leaf == nil || now.Add(renewBefore).After(leaf.NotAfter) {
		return false
	}

	for _, h := range hosts {
		if leaf.VerifyHostname(h) != nil {
			return false
		}
	}

	return true
}

// allHosts adds what a client on this machine may call it.
func allHosts(given []string) []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}

	if name, err := os.Hostname(); err == nil && validName(name) {
		hosts = append(hosts, name)
	}

	return append(hosts, given...)
}

// validName reports whether a certificate can be verified for the name.
func validName(name string) bool {
	probe := x509.Certificate{DNSNames: []string{name}}

	return name != "" && probe.VerifyHostname(name) == nil
}

func makeSelfSigned(hosts []string, now time.Time) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}

	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, fmt.Errorf("make serial: %w", err)
	}

	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: selfSignedName},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(selfSignedLife),
		// A client that trusts the file as an authority accepts the server: some libraries
		// take only authorities as anchors.
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}

	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}

	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, fmt.Errorf("sign: %w", err)
	}

	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}

	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), nil
}
