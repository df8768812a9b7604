package auth_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

const (
	domainID  = "dom-1"
	projectID = "0123456789abcdef0123456789abcdef"
	otherID   = "ffffffffffffffffffffffffffffffff"
	serviceID = "76c41384-23ab-45f9-a66e-892e7bc2be53"
	testAK    = "AKTESTINFERGATEWAY01"
	testSK    = "SkTestInferGateway0123456789abcdefABCDEF"
)

func clock() time.Time { return time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC) }

// headers is a list of header lines in wire order.
type headers [][2]string

func (h headers) Get(name string) []byte {
	for _, f := range h {
		if strings.EqualFold(f[0], name) {
			return []byte(f[1])
		}
	}

	return nil
}

func (h headers) Each(f func(name, value []byte) bool) {
	for _, l := range h {
		if !f([]byte(l[0]), []byte(l[1])) {
			return
		}
	}
}

func newRequest(h ...[2]string) *auth.Request {
	return &auth.Request{
		Method: []byte("POST"), Path: []byte("/v1/infers/" + serviceID), Host: []byte("infer.example.com"),
		Header: headers(h), Remote: netip.MustParseAddr("192.0.2.7"), TLS: true, Now: clock(),
		Body: func() ([]byte, error) { return nil, nil },
	}
}

// box seals by putting the context in front.
type box struct{ opened *int }

func seal(secret, context string) []byte { return []byte(context + "|" + secret) }

var errSealed = errors.New("sealed with another key")

func (b box) Open(sealed []byte, context string) ([]byte, error) {
	if b.opened != nil {
		*b.opened++
	}

	secret, ok := bytes.CutPrefix(sealed, []byte(context+"|"))
	if !ok {
		return nil, errSealed
	}

	return bytes.Clone(secret), nil
}

func key(tb testing.TB, seed byte) ed25519.PrivateKey {
	tb.Helper()

	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) []byte {
	p, _ := k.Public().(ed25519.PublicKey)

	return p
}

func hashOf(s string) []byte {
	sum := sha256.Sum256([]byte(s))

	return sum[:]
}

// world is a snapshot with one of everything.
func world(tb testing.TB) *spec.Snapshot {
	tb.Helper()

	return &spec.Snapshot{
		Schema: spec.SnapshotSchema, Revision: 7,
		Projects: []spec.Project{
			{ID: projectID, Name: "p", DomainID: domainID, Enabled: true},
			{ID: otherID, Name: "q", DomainID: domainID, Enabled: true},
			{ID: "closed", DomainID: domainID},
			{ID: "foreign", DomainID: "dom-2", Enabled: true},
		},
		Users: []spec.User{
			{ID: "u1", Name: "alice", DomainID: domainID, Enabled: true, Grants: []spec.Grant{{ProjectID: "*", Role: spec.RoleAdministrator}}},
			{ID: "u2", Name: "bob", DomainID: domainID, Enabled: true, Grants: []spec.Grant{{ProjectID: projectID, Role: spec.RoleCaller}}},
			{ID: "u3", Name: "nobody", DomainID: domainID, Enabled: true},
			{ID: "u4", Name: "gone", DomainID: domainID},
		},
		TokenKeys: []spec.TokenKey{{ID: "k1", PublicKey: public(key(tb, 1))}},
		AccessKeys: []spec.AccessKey{
			{AccessKey: testAK, SealedSecret: seal(testSK, "ak:"+testAK), UserID: "u1", DomainID: domainID, Enabled: true},
		},
		Apps: []spec.App{{
			ID: "app1", Name: "shop", ProjectID: projectID, UserID: "u1", Key: "appkey1", SealedSecret: seal("appsecret1", "app:app1"),
			Codes: []spec.AppCode{{Hash: hashOf("code-1")}}, Enabled: true,
		}},
		Services: []spec.Route{{ServiceID: serviceID, ProjectID: projectID, DomainID: domainID, AppIDs: []string{"app1"}, AppCodes: true}},
	}
}

func compile(tb testing.TB, s *spec.Snapshot, prev *auth.Directory) *auth.Directory {
	tb.Helper()

	d, err := auth.Compile(s, box{}, prev)
	if err != nil {
		tb.Fatal(err)
	}

	return d
}

func verifier(tb testing.TB, cfg auth.Config) *auth.Verifier {
	tb.Helper()

	v, err := auth.NewVerifier(cfg, auth.Hooks{})
	if err != nil {
		tb.Fatal(err)
	}

	return v
}

func wantFault(tb testing.TB, err error, code fault.Code) {
	tb.Helper()

	var f *fault.Error
	if !errors.As(err, &f) {
		tb.Fatalf("got %v, want a fault %s", err, code.Wire())
	}

	if f.Code != code {
		tb.Fatalf("got %v, want %s %q", err, code.Wire(), code.Text())
	}
}

func claims() auth.TokenClaims {
	return auth.TokenClaims{
		ID: "jti-1", UserID: "u1", DomainID: domainID, ProjectID: projectID, Methods: []string{"password"},
		IssuedAt: clock().Add(-time.Hour), ExpiresAt: clock().Add(23 * time.Hour),
	}
}

func issue(tb testing.TB, c auth.TokenClaims) string {
	tb.Helper()

	text, err := auth.IssueToken(key(tb, 1), "k1", c)
	if err != nil {
		tb.Fatal(err)
	}

	return text
}

func tokenRequest(token string) *auth.Request { return newRequest([2]string{"X-Auth-Token", token}) }
