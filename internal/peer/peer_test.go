package peer_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/peer"
	"github.com/sluice-gateway/sluice/internal/peer/peertest"
)

// talk lets a client and a server exchange a byte each way.
func talk(t *testing.T, server, client *tls.Config) error {
	t.Helper()

	a, b := net.Pipe()

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	done := make(chan struct{})

	go func() {
		defer close(done)
		defer a.Close()

		s := tls.Server(a, server)
		if s.HandshakeContext(ctx) == nil {
			_, _ = s.Write([]byte{1})
		}

		_, _ = io.Copy(io.Discard, a) // a client that is refused must be able to hear so
	}()

	c := tls.Client(b, client)
	err := c.HandshakeContext(ctx)

	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}

	_ = b.Close()

	<-done

	return err
}

func TestWhoMayTalkToWhom(t *testing.T) {
	t.Parallel()

	ours, strangers := peertest.Authority(t, 1), peertest.Authority(t, 9)

	asServer := peertest.Worker(t, ours, "svc-2")
	posing := ours.To("svc-1")
	posing.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &asServer.Certificates[0], nil
	}

	bare := ours.To("svc-1")
	bare.GetClientCertificate = nil

	foreign := strangers.To("svc-1")
	foreign.RootCAs = ours.To("svc-1").RootCAs

	insecure := ours.To("svc-1").Clone()
	insecure.GetClientCertificate, insecure.InsecureSkipVerify = nil, true

	for name, c := range map[string]struct {
		server, client *tls.Config
		ok             bool
	}{
		"a gateway":                            {peertest.Worker(t, ours, "svc-1"), ours.To("svc-1"), true},
		"another process with the same ring":   {peertest.Worker(t, ours, "svc-1"), peertest.Authority(t, 1).To("svc-1"), true},
		"another instance":                     {peertest.Worker(t, ours, "svc-2"), ours.To("svc-1"), false},
		"a worker of strangers":                {peertest.Worker(t, strangers, "svc-1"), ours.To("svc-1"), false},
		"a client without a certificate":       {peertest.Worker(t, ours, "svc-1"), bare, false},
		"a careless one without a certificate": {peertest.Worker(t, ours, "svc-1"), insecure, false},
		"a client of strangers":                {peertest.Worker(t, ours, "svc-1"), foreign, false},
		"a worker that poses as a gateway":     {peertest.Worker(t, ours, "svc-1"), posing, false},
	} {
		if err := talk(t, c.server, c.client); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// While a key is replaced, some processes know both keys and some one of them.
func TestKeysCanBeReplacedWithoutARestartOfWorkers(t *testing.T) {
	t.Parallel()

	before, both, after := peertest.Authority(t, 1), peertest.Authority(t, 2, 1), peertest.Authority(t, 2)

	old := peertest.Worker(t, before, "svc-1")
	middle := peertest.Worker(t, both, "svc-1")

	for name, c := range map[string]struct {
		server *tls.Config
		client *peer.Authority
		ok     bool
	}{
		"an old worker, a gateway with both": {old, both, true},
		"a new worker, a gateway with both":  {middle, both, true},
		"a new worker, a new gateway":        {middle, after, true},
		"an old worker, a new gateway":       {old, after, false},
	} {
		if err := talk(t, c.server, c.client.To("svc-1")); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCertificatesOfGatewaysAreRenewed(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		a := peertest.Authority(t, 1)
		server := peertest.Worker(t, a, "svc-1")
		asked := &tls.CertificateRequestInfo{AcceptableCAs: server.ClientCAs.Subjects()} //nolint:staticcheck // of a pool of our own

		var last *tls.Certificate

		made := 0

		for range 24 * 7 {
			cert, err := a.ClientCertificate(asked)
			if err != nil {
				t.Fatal(err)
			}

			if left := time.Until(cert.Leaf.NotAfter); left < 12*time.Hour {
				t.Fatalf("%v are left", left)
			}

			if cert != last {
				last = cert
				made++
			}

			<-time.After(time.Hour)
		}

		if made < 7 || made > 14+1 {
			t.Errorf("%d certificates in a week", made)
		}
	})
}

func TestNothingIsShownToStrangers(t *testing.T) {
	t.Parallel()

	a := peertest.Authority(t, 1)

	for _, names := range [][][]byte{nil, {[]byte("somebody")}} {
		cert, err := a.ClientCertificate(&tls.CertificateRequestInfo{AcceptableCAs: names})
		if err != nil || len(cert.Certificate) != 0 {
			t.Errorf("%q: %d certificates, %v", names, len(cert.Certificate), err)
		}
	}

	for _, secrets := range [][][]byte{nil, {{1, 2, 3}}} {
		if _, err := peer.New(secrets); err == nil {
			t.Errorf("%v is taken for secrets", secrets)
		}
	}
}
