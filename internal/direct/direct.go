// Package direct guards the doors by which callers reach instances without the gateway: an allow list of
// addresses, a static key in a header, TLS with or without certificates of clients.
//
// A Guard never changes and is safe for concurrent use. It authenticates nobody: who is let in may use
// the one model behind the door, and nothing else.
package direct

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// KeyHeader is the header, and in lower case the gRPC metadata, that carries the key.
const KeyHeader = "X-Sluice-Direct-Key"

// Guard says who may come in.
type Guard struct {
	allow []netip.Prefix
	key   []byte // SHA-256 of the key; nil if none is asked for
}

// New returns a Guard. allow lists addresses and prefixes, none means all; keyHash is the SHA-256 of the key
// in hexadecimal, or empty.
func New(allow []string, keyHash string) (*Guard, error) {
	g := &Guard{}

	for _, a := range allow {
		p, err := ParsePrefix(a)
		if err != nil {
			return nil, err
		}

		g.allow = append(g.allow, p)
	}

	if keyHash != "" {
		key, err := hex.DecodeString(keyHash)
		if err != nil || len(key) != sha256.Size {
			return nil, errors.New("the hash of the key is not a SHA-256 in hexadecimal")
		}

		g.key = key
	}

	return g, nil
}

// ParsePrefix reads an address or a prefix such as 10.0.0.0/8.
func ParsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()

		return netip.PrefixFrom(a, a.BitLen()), nil
	}

	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a prefix such as 10.0.0.0/8", s)
	}

	return p.Masked(), nil
}

// HashKey is what New wants of a key.
func HashKey(key string) string {
	sum := sha256.Sum256([]byte(key))

	return hex.EncodeToString(sum[:])
}

// From reports whether a caller may come from this address.
func (g *Guard) From(addr netip.Addr) bool {
	if len(g.allow) == 0 {
		return true
	}

	addr = addr.Unmap().WithZone("")
	for _, p := range g.allow {
		if p.Contains(addr) {
			return true
		}
	}

	return false
}

// Key reports whether this is the key, if one is asked for.
func (g *Guard) Key(given []byte) bool {
	if g.key == nil {
		return true
	}

	sum := sha256.Sum256(given)

	return subtle.ConstantTimeCompare(sum[:], g.key) == 1
}

// Keyed reports whether a key is asked for.
func (g *Guard) Keyed() bool { return g.key != nil }

// Listener gives the connections of ln that may come in, and closes the others.
func (g *Guard) Listener(ln net.Listener) net.Listener { return &listener{ln, g} }

type listener struct {
	net.Listener

	guard *Guard
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err //nolint:wrapcheck // servers compare it
		}

		if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok && l.guard.From(tcp.AddrPort().Addr()) {
			return c, nil
		}

		_ = c.Close() // a stranger
	}
}

// Files are the PEM files for TLS at a door.
type Files struct {
	Cert, Key string
	// ClientCA, when set, makes the certificate of a client compulsory.
	ClientCA string
}

// Config reads the files; nil without a certificate. Protocols are offered to clients in this order.
func (f Files) Config(protocols ...string) (*tls.Config, error) {
	if f.Cert == "" && f.Key == "" && f.ClientCA == "" {
		return nil, nil //nolint:nilnil // no TLS is a choice
	}

	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate of the direct door: %w", err)
	}

	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: protocols}
	if f.ClientCA == "" {
		return c, nil
	}

	pem, err := os.ReadFile(f.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("CA for clients of the direct door: %w", err)
	}

	c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA for clients of the direct door: %s holds no certificate", f.ClientCA)
	}

	return c, nil
}

// SplitList reads a list with commas, as flags have it.
func SplitList(s string) []string {
	if s == "" {
		return nil
	}

	return strings.Split(s, ",")
}
