package tlsconf_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/tlsconf"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// writePair writes a certificate for names and returns its files.
func writePair(t *testing.T, dir, base string, life time.Duration, names ...string) tlsconf.Files {
	t.Helper()

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}

	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: base}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life), BasicConstraintsValid: true,
	}

	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}

	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}

	f := tlsconf.Files{Cert: filepath.Join(dir, base+".crt"), Key: filepath.Join(dir, base+".key")}
	for name, block := range map[string]*pem.Block{
		f.Cert: {Type: "CERTIFICATE", Bytes: der}, f.Key: {Type: "PRIVATE KEY", Bytes: raw},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	return f
}

// handshake connects over a pipe and returns what the client saw.
func handshake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()

	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()

	go func() { _ = tls.Server(a, server).HandshakeContext(t.Context()) }()

	c := tls.Client(b, client)
	err := c.HandshakeContext(t.Context())

	return c.ConnectionState(), err
}

func served(t *testing.T, s *tlsconf.Source, name string) string {
	t.Helper()

	state, err := handshake(t, s.Config(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}

	return state.PeerCertificates[0].Subject.CommonName
}

func TestSelfSignedIsTrustedByItsFileAndKept(t *testing.T) {
	t.Parallel()

	dir := filepath.Join(t.TempDir(), "tls")
	cfg := tlsconf.Config{SelfSigned: tlsconf.SelfSigned{Dir: dir, Hosts: []string{"gw.example.test", "10.1.2.3"}}}

	s, err := tlsconf.New(cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}

	raw, err := os.ReadFile(filepath.Join(dir, "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}

	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(raw) {
		t.Fatal("no certificate in the file")
	}

	for _, host := range []string{"localhost", "127.0.0.1", "gw.example.test", "10.1.2.3"} {
		if _, err := handshake(t, s.Config(), &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}

	if fi, err := os.Stat(filepath.Join(dir, "tls.key")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("key: %v, %v", fi.Mode(), err)
	}

	if _, err := tlsconf.New(cfg, quiet()); err != nil {
		t.Fatal(err)
	}

	if again, err := os.ReadFile(filepath.Join(dir, "tls.crt")); err != nil || string(again) != string(raw) {
		t.Errorf("a second start made another certificate (%v)", err)
	}

	cfg.SelfSigned.Hosts = append(cfg.SelfSigned.Hosts, "new.example.test")
	if _, err := tlsconf.New(cfg, quiet()); err != nil {
		t.Fatal(err)
	}

	if again, err := os.ReadFile(filepath.Join(dir, "tls.crt")); err != nil || string(again) == string(raw) {
		t.Errorf("a new host did not make another certificate (%v)", err)
	}
}

func TestForeignFilesAreNotReplaced(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tls.crt"), []byte("not PEM"), 0o600); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, "tls.key"), []byte("not PEM"), 0o600); err != nil {
		t.Fatal(err)
	}

	if _, err := tlsconf.New(tlsconf.Config{SelfSigned: tlsconf.SelfSigned{Dir: dir}}, quiet()); err == nil {
		t.Fatal("a broken file was replaced silently")
	}
}

func TestHalfARenewalIsRepaired(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	cfg := tlsconf.Config{SelfSigned: tlsconf.SelfSigned{Dir: dir}}

	if _, err := tlsconf.New(cfg, quiet()); err != nil {
		t.Fatal(err)
	}

	// A crash after the new key was written and before the new certificate.
	other := writePair(t, t.TempDir(), "other", time.Hour)
	if err := os.Rename(other.Key, filepath.Join(dir, "tls.key")); err != nil {
		t.Fatal(err)
	}

	if _, err := tlsconf.New(cfg, quiet()); err != nil {
		t.Fatal(err)
	}
}

func TestProfileRefusesOldProtocolsAndCiphers(t *testing.T) {
	t.Parallel()

	s, err := tlsconf.New(tlsconf.Config{SelfSigned: tlsconf.SelfSigned{Dir: t.TempDir()}}, quiet())
	if err != nil {
		t.Fatal(err)
	}

	strict, err := tlsconf.New(tlsconf.Config{MinVersion: "1.3", SelfSigned: tlsconf.SelfSigned{Dir: t.TempDir()}}, quiet())
	if err != nil {
		t.Fatal(err)
	}

	for _, tc := range []struct {
		name   string
		source *tlsconf.Source
		client *tls.Config
		ok     bool
	}{
		{"1.3", s, &tls.Config{MinVersion: tls.VersionTLS13}, true},
		{"1.2", s, &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"1.1", s, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"1.0", s, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, false},
		{"CBC", s, &tls.Config{
			MaxVersion:   tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA},
		}, false},
		{"1.2 where 1.3 is wanted", strict, &tls.Config{MaxVersion: tls.VersionTLS12}, false},
		{"h2 alone", s, &tls.Config{NextProtos: []string{"h2"}}, false},
		{"h2 and 1.1", s, &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, true},
	} {
		tc.client.InsecureSkipVerify = true

		state, err := handshake(t, tc.source.Config(), tc.client)
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.name, err)
		}

		if tc.name == "h2 and 1.1" && state.NegotiatedProtocol != "http/1.1" {
			t.Errorf("negotiated %q", state.NegotiatedProtocol)
		}
	}
}

func TestCertificateIsChosenByServerName(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()

	s, err := tlsconf.New(tlsconf.Config{Certificates: []tlsconf.Files{
		writePair(t, dir, "first", time.Hour, "a.test"),
		writePair(t, dir, "second", time.Hour, "b.test", "*.wild.test"),
	}}, quiet())
	if err != nil {
		t.Fatal(err)
	}

	for name, want := range map[string]string{
		"a.test": "first", "b.test": "second", "B.TEST": "second", "x.wild.test": "second",
		"x.y.wild.test": "first", "wild.test": "first", "unknown.test": "first", "": "first",
	} {
		if got := served(t, s, name); got != want {
			t.Errorf("%q was served %s, want %s", name, got, want)
		}
	}
}

func TestChangedFilesAreServedWithoutRestart(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	files := writePair(t, dir, "old", time.Hour, "a.test")

	s, err := tlsconf.New(tlsconf.Config{Certificates: []tlsconf.Files{files}, ReloadEvery: config.Duration(5 * time.Millisecond)}, quiet())
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)

	go func() { ended <- s.Run(ctx) }()

	defer func() {
		cancel()

		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	// Something broken does not disturb what is served.
	good, err := os.ReadFile(files.Cert)
	if err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(files.Cert, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}

	if err := s.Reload(); err == nil {
		t.Fatal("a broken certificate was loaded")
	}

	if got := served(t, s, "a.test"); got != "old" {
		t.Fatalf("served %s", got)
	}

	if err := os.WriteFile(files.Cert, good, 0o600); err != nil {
		t.Fatal(err)
	}

	next := writePair(t, dir, "new", 2*time.Hour, "a.test")
	if err := errors.Join(os.Rename(next.Key, files.Key), os.Rename(next.Cert, files.Cert)); err != nil {
		t.Fatal(err)
	}

	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()

	for end := time.Now().Add(10 * time.Second); served(t, s, "a.test") != "new"; <-tick.C {
		if time.Now().After(end) {
			t.Fatal("the new certificate was never served")
		}
	}

	if left := time.Until(s.Expires()); left < time.Hour || left > 2*time.Hour {
		t.Errorf("expires in %v", left)
	}
}

func TestClientsNeedACertificateOfTheAuthorityThatIsOnDiskNow(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	server := writePair(t, dir, "server", time.Hour, "a.test")
	one, two := writePair(t, dir, "one", time.Hour, "one"), writePair(t, dir, "two", time.Hour, "two")

	ca := filepath.Join(dir, "ca")
	trust := func(cert string) {
		data, err := os.ReadFile(cert)
		if err == nil {
			err = os.WriteFile(ca, data, 0o600)
		}

		if err != nil {
			t.Fatal(err)
		}
	}

	trust(one.Cert)

	s, err := tlsconf.New(tlsconf.Config{Certificates: []tlsconf.Files{server}, ClientCA: ca}, quiet())
	if err != nil {
		t.Fatal(err)
	}

	conf := s.Config() // as a listener keeps it

	enters := func(files ...tlsconf.Files) bool {
		client := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12} // where a refusal ends the handshake

		for _, f := range files {
			cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
			if err != nil {
				t.Fatal(err)
			}

			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		}

		_, err := handshake(t, conf, client)

		return err == nil
	}

	if !enters(one) || enters(two) || enters() {
		t.Errorf("one enters: %t, two: %t, nobody: %t", enters(one), enters(two), enters())
	}

	trust(two.Cert)

	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}

	if enters(one) || !enters(two) || enters() {
		t.Errorf("after a change one enters: %t, two: %t, nobody: %t", enters(one), enters(two), enters())
	}

	// What cannot be loaded changes nothing.
	if err := os.WriteFile(ca, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}

	if err := s.Reload(); err == nil || !enters(two) || enters(one) {
		t.Errorf("a broken authority: %v, two enters: %t", err, enters(two))
	}

	if _, err := tlsconf.New(tlsconf.Config{Certificates: []tlsconf.Files{server}, ClientCA: ca}, quiet()); err == nil {
		t.Error("a broken authority is taken at the start")
	}
}

func TestExpiredAndMissingCertificatesAreRefused(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()

	for name, files := range map[string]tlsconf.Files{
		"expired": writePair(t, dir, "expired", -time.Minute, "a.test"),
		"no such": {Cert: filepath.Join(dir, "none.crt"), Key: filepath.Join(dir, "none.key")},
		"swapped": {Cert: writePair(t, dir, "one", time.Hour).Cert, Key: writePair(t, dir, "two", time.Hour).Key},
	} {
		if _, err := tlsconf.New(tlsconf.Config{Certificates: []tlsconf.Files{files}}, quiet()); err == nil ||
			!strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidateNamesEveryMistake(t *testing.T) {
	t.Parallel()

	cfg := tlsconf.Config{MinVersion: "1.1", Certificates: []tlsconf.Files{{}, {Cert: "x"}}}

	got := config.Mistakes(cfg.Validate())
	if len(got) != 4 {
		t.Fatalf("got %v", got)
	}

	if config.Mistakes((&tlsconf.Config{}).Validate()) == nil {
		t.Fatal("no certificates and no directory were accepted")
	}
}
