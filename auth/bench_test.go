package auth_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/spec"
)

// rawHeaders are headers as a door has them: bytes, names in any case.
type rawHeaders []sign.Field

func (h rawHeaders) Get(name string) []byte {
	for i := range h {
		if fold(h[i].Name, name) {
			return h[i].Value
		}
	}

	return nil
}

func (h rawHeaders) Each(f func(name, value []byte) bool) {
	for i := range h {
		if !f(h[i].Name, h[i].Value) {
			return
		}
	}
}

func fold(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}

	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}

		if c != lower[i] {
			return false
		}
	}

	return true
}

// raw gives a request the headers that a client sends beside its own.
func raw(r *auth.Request) *auth.Request {
	own, _ := r.Header.(headers)
	all := append(headers{
		{"Host", "infer.example.com"},
		{"User-Agent", "huaweicloud-usdk-go/3.0"},
		{"Content-Type", "application/json"},
		{"Content-Length", "1024"},
		{"Accept-Encoding", "gzip"},
	}, own...)

	h := make(rawHeaders, len(all))
	for i, l := range all {
		h[i] = sign.Field{Name: []byte(l[0]), Value: []byte(l[1])}
	}

	body, _ := r.Body()
	r.Header = h
	r.Body = func() ([]byte, error) { return body, nil }

	return r
}

// crowded is a world with 100,000 access keys, 10,000 services, and 1,000 statements for bob.
func crowded(tb testing.TB) *spec.Snapshot {
	tb.Helper()

	s := world(tb)

	for i := range 100_000 {
		ak := fmt.Sprintf("AKCROWD%06d", i)
		s.AccessKeys = append(s.AccessKeys, spec.AccessKey{AccessKey: ak, SealedSecret: seal(testSK, "ak:"+ak), UserID: "u1", Enabled: true})
	}

	for i := range 10_000 {
		s.Services = append(s.Services, spec.Route{ServiceID: fmt.Sprintf("svc-%d", i), ProjectID: projectID, AppIDs: []string{"app1"}})
	}

	statements := make([]spec.Statement, 0, 1000)

	for i := range 500 {
		resource := fmt.Sprintf("modelarts:%s:service:svc-%d", projectID, i)
		statements = append(statements, statement("Allow", auth.ActionPredict, resource), statement("Deny", "modelarts:service:*", resource+"-*"))
	}

	s.Users[1].Grants = append(s.Users[1].Grants, spec.Grant{ProjectID: projectID, Statements: statements})

	return s
}

func benchmarkWorlds(b *testing.B, run func(b *testing.B, d *auth.Directory)) {
	b.Helper()

	for name, s := range map[string]*spec.Snapshot{"small": world(b), "crowded": crowded(b)} {
		d := compile(b, s, nil)

		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			run(b, d)
		})
	}
}

func benchmarkVerify(b *testing.B, r *auth.Request) {
	b.Helper()
	benchmarkWorlds(b, func(b *testing.B, d *auth.Directory) {
		b.Helper()

		v := verifier(b, auth.Config{})

		for b.Loop() {
			if _, err := v.Verify(d, r, auth.AllowDefault); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkVerifyToken(b *testing.B) {
	benchmarkVerify(b, raw(tokenRequest(issue(b, claims()))))
}

func BenchmarkVerifySignature1KiB(b *testing.B) {
	benchmarkVerify(b, raw(signedRequest(b, signer(), string(bytes.Repeat([]byte("x"), 1024)))))
}

// BenchmarkVerifyManyRequests takes another of 5,000 requests each time, of which none is in the
// processor's cache, once all by the same key and once each by its own of 100,000 keys.
func BenchmarkVerifyManyRequests(b *testing.B) {
	d, v := compile(b, crowded(b), nil), verifier(b, auth.Config{})
	body := string(bytes.Repeat([]byte("x"), 1024))

	for name, step := range map[string]int{"same key": 0, "own key": 20} {
		requests := make([]*auth.Request, 5000)

		for i := range requests {
			s := signer()
			s.AccessKey = fmt.Sprintf("AKCROWD%06d", i*step)
			requests[i] = raw(signedRequest(b, s, body))
		}

		b.Run(name, func(b *testing.B) {
			i := 0

			for b.Loop() {
				if _, err := v.Verify(d, requests[i%len(requests)], auth.AllowDefault); err != nil {
					b.Fatal(err)
				}

				i++
			}
		})
	}
}

func BenchmarkVerifyAppCode(b *testing.B) {
	benchmarkVerify(b, raw(newRequest([2]string{"X-Apig-AppCode", "code-1"})))
}

// BenchmarkVerifyTokenFirst is a token that is not in the cache: an Ed25519 verification.
func BenchmarkVerifyTokenFirst(b *testing.B) {
	r := raw(tokenRequest(issue(b, claims())))
	d := compile(b, world(b), nil)

	for b.Loop() {
		b.StopTimer()

		v := verifier(b, auth.Config{TokenCache: 1})

		b.StartTimer()

		if _, err := v.Verify(d, r, auth.AllowDefault); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAuthorize asks for bob, who has 1,000 statements in the crowded world.
func BenchmarkAuthorize(b *testing.B) {
	p := &auth.Principal{Method: auth.MethodAKSK, UserID: "u2", DomainID: domainID}

	benchmarkWorlds(b, func(b *testing.B, d *auth.Directory) {
		b.Helper()

		for b.Loop() {
			if err := d.Authorize(p, auth.ActionPredict, projectID, serviceID); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkCompile is a new snapshot in which only services changed.
func BenchmarkCompile(b *testing.B) {
	s := crowded(b)
	first := compile(b, s, nil)

	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			compile(b, s, nil)
		}
	})
	b.Run("services", func(b *testing.B) {
		for b.Loop() {
			compile(b, s, first)
		}
	})
}
