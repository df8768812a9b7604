package direct_test

import (
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/direct"
)

func TestGuard(t *testing.T) {
	t.Parallel()

	open, err := direct.New(nil, "")
	if err != nil {
		t.Fatal(err)
	}

	if !open.From(netip.MustParseAddr("8.8.8.8")) || !open.Key(nil) || open.Keyed() {
		t.Error("a guard without rules refuses")
	}

	g, err := direct.New([]string{"10.0.0.0/8", "192.168.1.7", "fd00::/8", "::ffff:172.16.0.1"}, direct.HashKey("open sesame"))
	if err != nil {
		t.Fatal(err)
	}

	for addr, want := range map[string]bool{
		"10.255.0.1": true, "11.0.0.1": false, "192.168.1.7": true, "192.168.1.8": false, "::ffff:10.1.1.1": true,
		"fd12::1": true, "fe80::1": false, "172.16.0.1": true, "fd12::1%eth0": true,
	} {
		if got := g.From(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}

	for key, want := range map[string]bool{"open sesame": true, "Open sesame": false, "": false, "open sesame ": false} {
		if g.Key([]byte(key)) != want {
			t.Errorf("key %q: %v", key, !want)
		}
	}
}

func TestGuardRefusesBadRules(t *testing.T) {
	t.Parallel()

	for _, allow := range []string{"", "10.0.0.0/33", "example.com", "fe80::1%eth0", "10.0.0"} {
		if _, err := direct.New([]string{allow}, ""); err == nil {
			t.Errorf("%q is accepted", allow)
		}
	}

	for _, hash := range []string{"abc", "zz", direct.HashKey("x")[2:]} {
		if _, err := direct.New(nil, hash); err == nil {
			t.Errorf("hash %q is accepted", hash)
		}
	}

	if _, err := (direct.Files{Cert: filepath.Join(t.TempDir(), "no"), Key: "no"}).Config(); err == nil {
		t.Error("files that are not there are accepted")
	}

	if c, err := (direct.Files{}).Config(); c != nil || err != nil {
		t.Errorf("%v %v", c, err)
	}
}

func TestListenerClosesOnStrangers(t *testing.T) {
	t.Parallel()

	for allow, want := range map[string]bool{"127.0.0.0/8": true, "10.0.0.0/8": false} {
		g, err := direct.New([]string{allow}, "")
		if err != nil {
			t.Fatal(err)
		}

		raw, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}

		ln := g.Listener(raw)
		done := make(chan struct{})

		go func() {
			defer close(done)

			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}

				_, _ = io.WriteString(c, "hello")
				_ = c.Close()
			}
		}()

		c, err := net.Dial("tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}

		_ = c.SetDeadline(time.Now().Add(10 * time.Second))

		got, _ := io.ReadAll(c)
		if (string(got) == "hello") != want {
			t.Errorf("%s: got %q", allow, got)
		}

		_ = c.Close()
		_ = ln.Close()
		<-done
	}
}
