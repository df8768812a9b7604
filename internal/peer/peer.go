package peer

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// Purpose is what the secrets of New are derived for, see secretbox.Keyring.Derive.
const Purpose = "authority of peers"

const (
	// clientLife bounds what a stolen certificate of a gateway is good for; half of it is left at least.
	clientLife = 24 * time.Hour
	// workerLife is longer than an instance lives: nobody has to renew what a running worker holds.
	workerLife = 10 * 365 * 24 * time.Hour
	// clockSkew is by how much clocks may differ.
	clockSkew = 12 * time.Hour
	// domain is below which peers have their names; it is never resolved.
	domain = ".sluice.internal"
)

// Authority issues and verifies certificates.
type Authority struct {
	issuers []*issuer // the first one issues for workers
	roots   *x509.CertPool
}

// issuer is what one key of the ring stands for.
type issuer struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey

	mu     sync.Mutex // guards client
	client *tls.Certificate
}

// New returns the authority of secrets of 32 bytes. The first one issues, all are trusted.
func New(secrets [][]byte) (*Authority, error) {
	if len(secrets) == 0 {
		return nil, errors.New("authority of peers: there is no secret")
	}

	a := &Authority{roots: x509.NewCertPool()}

	for _, secret := range secrets {
		if len(secret) != ed25519.SeedSize {
			return nil, fmt.Errorf("authority of peers: a secret has %d bytes, want %d", len(secret), ed25519.SeedSize)
		}

		i, err := newIssuer(ed25519.NewKeyFromSeed(secret))
		if err != nil {
			return nil, fmt.Errorf("authority of peers: %w", err)
		}

		a.issuers = append(a.issuers, i)
		a.roots.AddCert(i.cert)
	}

	return a, nil
}

// newIssuer makes the same certificate from the same key everywhere and always.
func newIssuer(key ed25519.PrivateKey) (*issuer, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("BUG: the key has no public part")
	}

	t := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		// Servers tell clients the names of the authorities that they trust.
		Subject:               pkix.Name{CommonName: "Sluice peers " + hex.EncodeToString(public[:8])},
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2120, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}

	der, err := x509.CreateCertificate(rand.Reader, t, t, public, key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate of the authority: %w", err)
	}

	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the authority: %w", err)
	}

	return &issuer{cert: cert, key: key}, nil
}

// issue makes a key and a certificate for it.
func (i *issuer) issue(name string, use x509.ExtKeyUsage, now time.Time, life time.Duration) (*tls.Certificate, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}

	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}

	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use}, BasicConstraintsValid: true,
	}, i.cert, public, i.key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}

	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read a certificate: %w", err)
	}

	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// workerName is the name of an instance in certificates.
func workerName(instance string) string { return instance + ".worker" + domain }

// Worker makes what the worker of an instance needs, as PEM: its certificate with the key, and the authorities
// whose clients it lets in.
func (a *Authority) Worker(instance string) (pair, clients []byte, err error) {
	cert, err := a.issuers[0].issue(workerName(instance), x509.ExtKeyUsageServerAuth, time.Now(), workerLife)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of instance %s: %w", instance, err)
	}

	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of instance %s: %w", instance, err)
	}

	pair = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	pair = append(pair, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)

	for _, i := range a.issuers {
		clients = append(clients, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw})...)
	}

	return pair, clients, nil
}

// To is the configuration of a client that talks to the worker of this instance, and to nobody else.
func (a *Authority) To(instance string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: workerName(instance), RootCAs: a.roots,
		GetClientCertificate: a.ClientCertificate,
	}
}

// ClientCertificate shows a certificate to a server that trusts one of the authorities, and none to others. It
// is for tls.Config.GetClientCertificate.
func (a *Authority) ClientCertificate(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	for _, i := range a.issuers {
		for _, name := range asked.AcceptableCAs {
			if bytes.Equal(name, i.cert.RawSubject) {
				return i.asClient(time.Now())
			}
		}
	}

	return &tls.Certificate{}, nil // the server decides what to make of that
}

// asClient returns a certificate for clients that lasts.
func (i *issuer) asClient(now time.Time) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()

	if i.client != nil && i.client.Leaf.NotAfter.Sub(now) > clientLife/2 && !now.Before(i.client.Leaf.NotBefore) {
		return i.client, nil
	}

	cert, err := i.issue("gateway"+domain, x509.ExtKeyUsageClientAuth, now, clientLife)
	if err != nil {
		return nil, fmt.Errorf("certificate of a gateway: %w", err)
	}

	i.client = cert

	return cert, nil
}
