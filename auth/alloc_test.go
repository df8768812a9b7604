//go:build !race

package auth_test

import (
	"bytes"
	"testing"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/auth/sign"
)

func TestAllocsOfVerifying(t *testing.T) {
	d, v := compile(t, world(t), nil), verifier(t, auth.Config{ReplayEntries: 1024})
	noReplay := verifier(t, auth.Config{})
	body := string(bytes.Repeat([]byte("x"), 1024))
	unsigned := [2]string{"X-Sdk-Content-Sha256", "UNSIGNED-PAYLOAD"}
	query := raw(signedRequest(t, signer(), body))
	query.Query = []byte("b=2&a=%20&a=1")
	app := signer()
	asApp(&app)

	v11 := signer()
	v11.Algorithm, v11.Region, v11.Service = sign.V11, "r", "s"

	tests := map[string]struct {
		v *auth.Verifier
		r *auth.Request
	}{
		"token":            {v, raw(tokenRequest(issue(t, claims())))},
		"signature":        {noReplay, raw(signedRequest(t, signer(), body))},
		"unsigned payload": {noReplay, raw(signedRequest(t, signer(), body, unsigned))},
		"derived key":      {noReplay, raw(signedRequest(t, v11, body))},
		"app signature":    {noReplay, raw(signedRequest(t, app, body))},
		"app code":         {v, raw(newRequest([2]string{"X-Apig-AppCode", "code-1"}))},
		"app key":          {v, raw(newRequest([2]string{"apikey", "appkey1"}))},
	}

	for name, test := range tests {
		var err error

		n := testing.AllocsPerRun(200, func() { _, err = test.v.Verify(d, test.r, auth.AllowDefault) })
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}

		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestAllocsOfAuthorizing(t *testing.T) {
	d := compile(t, crowded(t), nil)
	p := &auth.Principal{Method: auth.MethodAKSK, UserID: "u2", DomainID: domainID}

	var err error

	if n := testing.AllocsPerRun(200, func() { err = d.Authorize(p, auth.ActionPredict, projectID, serviceID) }); n != 0 {
		t.Errorf("%v allocations", n)
	}

	if err != nil {
		t.Error(err)
	}
}

func TestAllocsOfSigning(t *testing.T) {
	p, err := signer().Prepare()
	if err != nil {
		t.Fatal(err)
	}

	var b sign.Builder

	m := sign.Message{
		Method: []byte("POST"), Path: []byte("/v1/infers/x"), Query: []byte("b=1&a=2"),
		Fields: []sign.Field{{Name: []byte("host"), Value: []byte("h")}, {Name: []byte("x-sdk-date"), Value: []byte("20250102T030405Z")}},
	}
	body, dst := make([]byte, 1024), make([]byte, 0, 512)

	if n := testing.AllocsPerRun(200, func() { dst = p.AppendAuthorization(dst[:0], &b, &m, body) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
