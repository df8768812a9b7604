package auth_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

func TestAppCodesAndKeys(t *testing.T) {
	t.Parallel()

	code := func(v string) [2]string { return [2]string{"X-Apig-AppCode", v} }
	apikey := func(v string) [2]string { return [2]string{"apikey", v} }

	const ok = fault.Internal

	tests := map[string]struct {
		cfg    auth.Config
		header [2]string
		plain  bool // plain HTTP
		method auth.Method
		code   fault.Code
	}{
		"code":                    {header: code("code-1"), method: auth.MethodAppCode},
		"unknown code":            {header: code("code-2"), code: fault.AppUnknown},
		"code in other letters":   {header: code("CODE-1"), code: fault.AppUnknown},
		"code, plain":             {header: code("code-1"), plain: true, code: fault.TLSRequired},
		"code, plain, allowed":    {header: code("code-1"), plain: true, cfg: auth.Config{PlainAppCodes: true}, method: auth.MethodAppCode},
		"code of a disabled app":  {header: code("code-off"), code: fault.AppUnknown},
		"key":                     {header: apikey("appkey1"), method: auth.MethodAppKey},
		"unknown key":             {header: apikey("appkey2"), code: fault.AppUnknown},
		"key, plain":              {header: apikey("appkey1"), plain: true, code: fault.TLSRequired},
		"key, plain, allowed":     {header: apikey("appkey1"), plain: true, cfg: auth.Config{PlainAppCodes: true}, method: auth.MethodAppKey},
		"key of a disabled app":   {header: apikey("appkey-off"), code: fault.AppUnknown},
		"keys alone are off":      {header: apikey("appkey1"), cfg: auth.Config{RefuseAppKeys: true}, code: fault.NoCredentials},
		"app without its secret":  {header: code("code-unsealed"), method: auth.MethodAppCode},
		"user's key is no apikey": {header: apikey(testAK), code: fault.AppUnknown},
	}

	s := world(t)
	s.Apps = append(s.Apps,
		spec.App{ID: "off", Key: "appkey-off", SealedSecret: seal("x", "app:off"), Codes: []spec.AppCode{{Hash: hashOf("code-off")}}},
		spec.App{ID: "app1b", Key: "k", SealedSecret: []byte("garbage"), Codes: []spec.AppCode{{Hash: hashOf("code-unsealed")}, {Hash: []byte("short")}}, Enabled: true})
	d := compile(t, s, nil)

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			r := newRequest(test.header)
			r.TLS = !test.plain

			p, err := verifier(t, test.cfg).Verify(d, r, auth.AllowDefault)
			if test.code != ok {
				wantFault(t, err, test.code)

				return
			}

			if err != nil {
				t.Fatal(err)
			}

			if p.Method != test.method || p.AppID == "" || p.Key != "app:"+p.AppID || p.AppID == "app1" && (p.ProjectID != projectID || p.DomainID != domainID) {
				t.Errorf("got %+v", p)
			}
		})
	}
}

// TestWhichCredentialCounts is the table of the package documentation.
func TestWhichCredentialCounts(t *testing.T) {
	t.Parallel()

	token := [2]string{"X-Auth-Token", issue(t, claims())}
	badToken := [2]string{"X-Auth-Token", "garbage"}
	code := [2]string{"X-Apig-AppCode", "code-1"}
	badCode := [2]string{"X-Apig-AppCode", "garbage"}
	apikey := [2]string{"apikey", "appkey1"}
	signed := func(change ...[2]string) *auth.Request {
		r := signedRequest(t, signer(), "")
		for _, h := range change {
			also(r, h[0], h[1])
		}

		return r
	}
	appSigner := signer()
	asApp(&appSigner)

	const ok = fault.Internal

	tests := map[string]struct {
		r       *auth.Request
		allowed auth.AuthSet
		method  auth.Method
		code    fault.Code
	}{
		"token before signature":          {signed(token), auth.AllowDefault, auth.MethodToken, ok},
		"bad token, good signature":       {signed(badToken), auth.AllowDefault, 0, fault.TokenInvalid},
		"empty token is none":             {signed([2]string{"X-Auth-Token", ""}), auth.AllowDefault, auth.MethodAKSK, ok},
		"signature before code":           {signed(code), auth.AllowDefault, auth.MethodAKSK, ok},
		"code before key":                 {newRequest(apikey, code), auth.AllowDefault, auth.MethodAppCode, ok},
		"bad code, good key":              {newRequest(apikey, badCode), auth.AllowDefault, 0, fault.AppUnknown},
		"foreign scheme beside a code":    {newRequest([2]string{"Authorization", "Bearer x"}, code), auth.AllowDefault, auth.MethodAppCode, ok},
		"foreign scheme alone":            {newRequest([2]string{"Authorization", "Basic x"}), auth.AllowDefault, 0, fault.AuthFormat},
		"token where only apps may":       {newRequest(token), auth.AllowApp, 0, fault.AuthTypeNotAllowed},
		"token and code, only apps may":   {newRequest(token, code), auth.AllowApp, auth.MethodAppCode, ok},
		"user key where only apps may":    {signed(), auth.AllowApp, 0, fault.AuthTypeNotAllowed},
		"app key where only users may":    {signedRequest(t, appSigner, ""), auth.AllowAKSK, 0, fault.AuthTypeNotAllowed},
		"unknown key where only apps may": {signedRequest(t, unknownSigner(), ""), auth.AllowApp, 0, fault.AppUnknown},
		"unknown key where both may":      {signedRequest(t, unknownSigner(), ""), auth.AllowDefault, 0, fault.AccessKeyUnknown},
		"signature where tokens only":     {signed(), auth.AllowToken, 0, fault.AuthTypeNotAllowed},
		"code where users only":           {newRequest(code), auth.AllowToken | auth.AllowAKSK, 0, fault.AuthTypeNotAllowed},
		"key where users only":            {newRequest(apikey), auth.AllowToken | auth.AllowAKSK, 0, fault.AuthTypeNotAllowed},
		"public, nothing":                 {newRequest(), auth.AllowNone, auth.MethodNone, ok},
		"public, bad token":               {newRequest(badToken), auth.AllowNone, auth.MethodNone, ok},
		"public, user key":                {signed(), auth.AllowNone | auth.AllowApp, auth.MethodNone, ok},
		"public, foreign scheme":          {newRequest([2]string{"Authorization", "Bearer x"}), auth.AllowNone, auth.MethodNone, ok},
		"public or token, good token":     {newRequest(token), auth.AllowNone | auth.AllowToken, auth.MethodToken, ok},
		"public or token, bad token":      {newRequest(badToken), auth.AllowNone | auth.AllowToken, 0, fault.TokenInvalid},
		"nothing allowed":                 {newRequest(token), 0, 0, fault.AuthTypeNotAllowed},
	}

	d := compile(t, world(t), nil)

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			rejected := fault.Internal

			v, err := auth.NewVerifier(auth.Config{}, auth.Hooks{Rejected: func(c fault.Code) { rejected = c }})
			if err != nil {
				t.Fatal(err)
			}

			p, err := v.Verify(d, test.r, test.allowed)
			if rejected != test.code {
				t.Errorf("the hook tells code %d, want %d", rejected, test.code)
			}

			if test.code != ok {
				wantFault(t, err, test.code)

				return
			}

			if err != nil {
				t.Fatal(err)
			}

			if p.Method != test.method {
				t.Errorf("method %d, want %d", p.Method, test.method)
			}
		})
	}
}

func TestParseAuthSet(t *testing.T) {
	t.Parallel()

	for want, types := range map[string][]spec.AuthType{
		"TOKEN,AKSK,APP": nil,
		"AKSK,NONE":      {spec.AuthNone, spec.AuthAKSK},
		"":               {"PASSWORD"},
	} {
		if got := auth.ParseAuthSet(types).String(); got != want {
			t.Errorf("%v: got %q, want %q", types, got, want)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()

	for name, cfg := range map[string]auth.Config{
		"token cache": {TokenCache: -1}, "lock entries": {LockEntries: 1 << 30}, "lock after": {LockAfter: -5},
		"lock for": {LockFor: 1}, "prefix": {LockPrefix4: 64}, "skew": {Skew: -1}, "body": {MaxSignedBody: -1}, "replay": {ReplayEntries: -1},
	} {
		if _, err := auth.NewVerifier(cfg, auth.Hooks{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
