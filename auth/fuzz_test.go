package auth_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// FuzzVerify feeds raw requests: never a panic, and an error is always a fault below 500.
func FuzzVerify(f *testing.F) {
	for _, v := range vectors(f) {
		wire, err := base64.StdEncoding.DecodeString(v.Wire)
		if err != nil {
			f.Fatal(err)
		}

		f.Add(wire)
	}

	f.Add([]byte("GET / HTTP/1.1\r\nX-Auth-Token: " + issue(f, claims()) + "\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\napikey: appkey1\r\nX-Apig-AppCode: code-1\r\n\r\n"))

	s := world(f)
	s.AccessKeys[0].SealedSecret = seal("known only to the directory", "ak:"+testAK)
	d := compile(f, s, nil)
	v := verifier(f, auth.Config{ReplayEntries: 64, LockAfter: 1e6})

	f.Fuzz(func(t *testing.T, wire []byte) {
		head, body, _ := bytes.Cut(wire, []byte("\r\n\r\n"))
		lines := strings.Split(string(head), "\r\n")

		method, target, _ := strings.Cut(lines[0], " ")
		target, _, _ = strings.Cut(target, " ")
		path, query, _ := strings.Cut(target, "?")

		h := make(headers, 0, len(lines))

		for _, l := range lines[1:] {
			name, value, _ := strings.Cut(l, ":")
			h = append(h, [2]string{name, strings.TrimSpace(value)})
		}

		r := newRequest()
		r.Method, r.Path, r.Query, r.Host, r.Header = []byte(method), []byte(path), []byte(query), h.Get("host"), h
		r.Body = func() ([]byte, error) { return body, nil }

		for _, allowed := range []auth.AuthSet{auth.AllowDefault, auth.AllowApp, auth.AllowNone | auth.AllowAKSK, 0} {
			p, err := v.Verify(d, r, allowed)

			var fe *fault.Error
			if (p == nil) == (err == nil) || err != nil && (!errors.As(err, &fe) || fe.Code.Status() >= 500) {
				t.Fatalf("got %v, %v", p, err)
			}

			if p != nil && p.Method == auth.MethodAKSK {
				t.Fatal("a signature without the secret is accepted")
			}
		}
	})
}

// FuzzStatements compiles any statement and asks: never a panic, and a Deny of everything denies.
func FuzzStatements(f *testing.F) {
	f.Add("Allow", "modelarts:*", "modelarts:*:service:a*b*c", "abc")
	f.Add("Deny", "*", "**", "")

	f.Fuzz(func(t *testing.T, effect, action, resource, id string) {
		s := world(t)
		in := func(st ...spec.Statement) bool {
			s.Users[0].Grants = []spec.Grant{{ProjectID: projectID, Statements: st}}
			p := &auth.Principal{Method: auth.MethodAKSK, UserID: "u1", DomainID: domainID}

			return compile(t, s, nil).Authorize(p, auth.ActionPredict, projectID, id) == nil
		}

		st := spec.Statement{Effect: effect, Actions: []string{action}, Resources: []string{resource}}
		alone := in(st)

		if alone && effect != "Allow" {
			t.Errorf("effect %q allows", effect)
		}

		if in(st, spec.Statement{Effect: "Deny", Actions: []string{"*"}}) {
			t.Error("a Deny of everything does not win")
		}
	})
}
