package auth_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

func signer() sign.Signer {
	return sign.Signer{AccessKey: testAK, Secret: spec.NewSecret(testSK)}
}

// signedRequest signs a request for /v1/infers/{serviceID} with the given headers and body.
func signedRequest(tb testing.TB, s sign.Signer, body string, h ...[2]string) *auth.Request {
	tb.Helper()

	return signedAt(tb, s, clock(), body, h...)
}

func signedAt(tb testing.TB, s sign.Signer, at time.Time, body string, h ...[2]string) *auth.Request {
	tb.Helper()

	p, err := s.Prepare()
	if err != nil {
		tb.Fatal(err)
	}

	r := newRequest()
	h = append(slices.Clone(h), [2]string{"X-Sdk-Date", at.UTC().Format(sign.DateLayout)})

	fields := append(make([]sign.Field, 0, len(h)+1), sign.Field{Name: []byte("host"), Value: r.Host})
	for _, l := range h {
		fields = append(fields, sign.Field{Name: []byte(strings.ToLower(l[0])), Value: []byte(l[1])})
	}

	slices.SortFunc(fields, func(a, b sign.Field) int { return bytes.Compare(a.Name, b.Name) })

	m := sign.Message{Method: r.Method, Path: r.Path, Query: r.Query, Fields: fields}
	authorization := p.AppendAuthorization(nil, &sign.Builder{}, &m, []byte(body))
	r.Header = append(headers(h), [2]string{"Authorization", string(authorization)})
	r.Body = func() ([]byte, error) { return []byte(body), nil }
	r.Now = clock()

	return r
}

// set replaces or removes (value "-") a header line.
func set(r *auth.Request, name, value string) *auth.Request {
	h, _ := r.Header.(headers)
	h = slices.DeleteFunc(slices.Clone(h), func(l [2]string) bool { return strings.EqualFold(l[0], name) })

	if value != "-" {
		h = append(h, [2]string{name, value})
	}

	r.Header = h

	return r
}

func edit(r *auth.Request, old, with string) *auth.Request {
	return set(r, "Authorization", strings.Replace(string(r.Header.Get("authorization")), old, with, 1))
}

func TestSignedRequestSaysWhoCalls(t *testing.T) {
	t.Parallel()

	p, err := verifier(t, auth.Config{}).Verify(compile(t, world(t), nil), signedRequest(t, signer(), "{}"), auth.AllowDefault)
	if err != nil {
		t.Fatal(err)
	}

	if p.Method != auth.MethodAKSK || p.UserID != "u1" || p.UserName != "alice" || p.AccessKey != testAK || p.Key != "user:u1" || p.DomainID != domainID {
		t.Errorf("got %+v", p)
	}
}

func TestSignedRequests(t *testing.T) {
	t.Parallel()

	const digestOfOther = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // of nothing

	plain := func() *auth.Request { return signedRequest(t, signer(), "{}") }
	with := func(change func(s *sign.Signer), h ...[2]string) *auth.Request {
		s := signer()
		change(&s)

		return signedRequest(t, s, "{}", h...)
	}
	same := func(*sign.Signer) {}
	v11 := func(s *sign.Signer) { s.Algorithm, s.Region, s.Service = sign.V11, "cn-north-4", "modelarts" }
	unsigned := [2]string{"X-Sdk-Content-Sha256", "UNSIGNED-PAYLOAD"}

	const ok = fault.Internal // means: accepted

	tests := map[string]struct {
		make func() *auth.Request
		code fault.Code
	}{
		"plain": {plain, ok},
		"sm3":   {func() *auth.Request { return with(func(s *sign.Signer) { s.Algorithm = sign.HMACSM3 }) }, ok},
		"v11":   {func() *auth.Request { return with(v11) }, ok},
		"v11 of another day": {func() *auth.Request {
			return edit(with(v11), "/20250102/", "/20250103/")
		}, fault.AuthFormat},
		"v11 of another region": {func() *auth.Request {
			return edit(with(v11), "/cn-north-4/", "/cn-north-1/")
		}, fault.SignatureMismatch},
		"no spaces after commas": {func() *auth.Request {
			r := plain()

			return set(r, "Authorization", strings.ReplaceAll(string(r.Header.Get("authorization")), ", ", ","))
		}, ok},
		"another secret": {func() *auth.Request {
			return with(func(s *sign.Signer) { s.Secret = spec.NewSecret("x") })
		}, fault.SignatureMismatch},
		"unknown key":       {func() *auth.Request { return with(func(s *sign.Signer) { s.AccessKey = "AKX" }) }, fault.AccessKeyUnknown},
		"disabled key":      {func() *auth.Request { return with(func(s *sign.Signer) { s.AccessKey = "AKOFF" }) }, fault.AccessKeyUnknown},
		"expired key":       {func() *auth.Request { return with(func(s *sign.Signer) { s.AccessKey = "AKOLD" }) }, fault.AccessKeyUnknown},
		"disabled user":     {func() *auth.Request { return with(func(s *sign.Signer) { s.AccessKey = "AKGONE" }) }, fault.AccessKeyUnknown},
		"app key":           {func() *auth.Request { return with(asApp) }, ok},
		"app, wrong secret": {func() *auth.Request { return with(func(s *sign.Signer) { s.AccessKey = "appkey1" }) }, fault.AppSignature},
		"other method":      {func() *auth.Request { r := plain(); r.Method = []byte("PUT"); return r }, fault.SignatureMismatch},
		"method in lower":   {func() *auth.Request { r := plain(); r.Method = []byte("post"); return r }, fault.SignatureMismatch},
		"other path":        {func() *auth.Request { r := plain(); r.Path = []byte("/v1/infers/y"); return r }, fault.SignatureMismatch},
		"other query":       {func() *auth.Request { r := plain(); r.Query = []byte("a=1"); return r }, fault.SignatureMismatch},
		"other host":        {func() *auth.Request { r := plain(); r.Host = []byte("evil.example.com"); return r }, fault.SignatureMismatch},
		"no host":           {func() *auth.Request { r := plain(); r.Host = nil; return r }, fault.SignatureMismatch},
		"other body": {func() *auth.Request {
			r := plain()
			r.Body = func() ([]byte, error) { return []byte("{ }"), nil }

			return r
		}, fault.SignatureMismatch},
		"no body at all": {func() *auth.Request { r := plain(); r.Body = nil; return r }, fault.SignatureMismatch},
		"body error": {func() *auth.Request {
			r := plain()
			r.Body = func() ([]byte, error) { return nil, fault.New(fault.RequestTimeout, "slow") }

			return r
		}, fault.RequestTimeout},
		"signed header is missing":   {func() *auth.Request { return set(with(same, [2]string{"X-A", "1"}), "X-A", "-") }, fault.SignatureMismatch},
		"signed header changed":      {func() *auth.Request { return set(with(same, [2]string{"X-A", "1"}), "X-A", "2") }, fault.SignatureMismatch},
		"signed header padded":       {func() *auth.Request { return set(with(same, [2]string{"X-A", "1"}), "X-A", " 1 ") }, ok},
		"signed header twice":        {func() *auth.Request { return with(same, [2]string{"X-A", "1"}, [2]string{"X-A", "2"}) }, ok},
		"second line slipped in":     {func() *auth.Request { return also(with(same, [2]string{"X-A", "1"}), "x-a", "2") }, fault.SignatureMismatch},
		"unsigned header changes":    {func() *auth.Request { return set(plain(), "User-Agent", "any") }, ok},
		"date is not signed":         {func() *auth.Request { return edit(plain(), "host;x-sdk-date", "host") }, fault.AuthFormat},
		"no date":                    {func() *auth.Request { return set(plain(), "X-Sdk-Date", "-") }, fault.AuthFormat},
		"date twice":                 {func() *auth.Request { return also(plain(), "X-Sdk-Date", "20250102T030405Z") }, fault.AuthFormat},
		"date is nonsense":           {func() *auth.Request { return set(plain(), "X-Sdk-Date", "Thu, 02 Jan 2025") }, fault.AuthFormat},
		"authorization twice":        {func() *auth.Request { return also(plain(), "authorization", "SDK-HMAC-SHA256 x") }, fault.AuthFormat},
		"authorization is nonsense":  {func() *auth.Request { return set(plain(), "Authorization", "SDK-HMAC-SHA256 nonsense") }, fault.AuthFormat},
		"algorithm that is not ours": {func() *auth.Request { return set(plain(), "Authorization", "SDK-HMAC-MD5 Access=a") }, fault.AuthFormat},
		"scheme of somebody else":    {func() *auth.Request { return set(plain(), "Authorization", "Bearer abc") }, fault.AuthFormat},
		"headers in another order": {func() *auth.Request {
			return edit(plain(), "host;x-sdk-date", "x-sdk-date;host")
		}, fault.SignatureMismatch},
		"unsigned payload": {func() *auth.Request { return with(same, unsigned) }, ok},
		"unsigned payload, SM3": {func() *auth.Request {
			return with(func(s *sign.Signer) { s.Algorithm = sign.HMACSM3 }, [2]string{"X-Sdk-Content-Sm3", "UNSIGNED-PAYLOAD"})
		}, ok},
		"unsigned payload slipped in": {func() *auth.Request { return set(plain(), "X-Sdk-Content-Sha256", "UNSIGNED-PAYLOAD") }, fault.SignatureMismatch},
		"digest slipped in":           {func() *auth.Request { return set(plain(), "X-Sdk-Content-Sha256", digestOfOther) }, fault.SignatureMismatch},
		"signed digest of other body": {func() *auth.Request {
			return with(same, [2]string{"X-Sdk-Content-Sha256", digestOfOther})
		}, fault.SignatureMismatch},
		"signed digest": {func() *auth.Request {
			return with(same, [2]string{"X-Sdk-Content-Sha256", hex.EncodeToString(hashOf("{}"))})
		}, ok},
		"digest is nonsense": {func() *auth.Request { return with(same, [2]string{"X-Sdk-Content-Sha256", "STREAMING"}) }, fault.AuthFormat},
		"digest twice": {func() *auth.Request {
			return also(with(same, unsigned), "X-Sdk-Content-Sha256", "UNSIGNED-PAYLOAD")
		}, fault.AuthFormat},
		"digest is empty":            {func() *auth.Request { return with(same, [2]string{"X-Sdk-Content-Sha256", ""}) }, ok},
		"temporary key":              {func() *auth.Request { return with(temporary, [2]string{"X-Security-Token", "sts"}) }, ok},
		"temporary key, unsigned":    {func() *auth.Request { return set(with(temporary), "X-Security-Token", "sts") }, ok},
		"temporary key, no token":    {func() *auth.Request { return with(temporary) }, fault.AccessKeyUnknown},
		"temporary key, other token": {func() *auth.Request { return set(with(temporary), "X-Security-Token", "sts2") }, fault.AccessKeyUnknown},
		"early, within the skew":     {func() *auth.Request { return signedAt(t, signer(), clock().Add(15*time.Minute), "") }, ok},
		"late, within the skew":      {func() *auth.Request { return signedAt(t, signer(), clock().Add(-15*time.Minute), "") }, ok},
		"too early": {func() *auth.Request {
			return signedAt(t, signer(), clock().Add(15*time.Minute+time.Second), "")
		}, fault.SignatureExpired},
		"too late": {func() *auth.Request {
			return signedAt(t, signer(), clock().Add(-15*time.Minute-time.Second), "")
		}, fault.SignatureExpired},
		"app, too late": {func() *auth.Request {
			s := signer()
			asApp(&s)

			return signedAt(t, s, clock().Add(-time.Hour), "")
		}, fault.AppSignatureExpired},
		"too many headers": {func() *auth.Request {
			r := plain()
			for range 600 {
				also(r, "x", "y")
			}

			return r
		}, fault.AuthFormat},
	}

	s := world(t)
	key := func(ak, user string, change func(k *spec.AccessKey)) {
		k := spec.AccessKey{AccessKey: ak, SealedSecret: seal(testSK, "ak:"+ak), UserID: user, Enabled: true}
		change(&k)
		s.AccessKeys = append(s.AccessKeys, k)
	}
	key("AKOFF", "u1", func(k *spec.AccessKey) { k.Enabled = false })
	key("AKOLD", "u1", func(k *spec.AccessKey) { k.ExpiresAt = clock().UnixMilli() })
	key("AKGONE", "u4", func(*spec.AccessKey) {})
	key("AKTEMP", "u1", func(k *spec.AccessKey) {
		k.SecurityTokenHash, k.ExpiresAt = hashOf("sts"), clock().Add(time.Minute).UnixMilli()
	})
	d := compile(t, s, nil)

	for name, test := range tests {
		r := test.make()

		t.Run(name, func(t *testing.T) {
			t.Parallel()

			p, err := verifier(t, auth.Config{}).Verify(d, r, auth.AllowDefault)
			if test.code == ok {
				if err != nil || p == nil {
					t.Fatal(err)
				}

				return
			}

			wantFault(t, err, test.code)
		})
	}
}

func asApp(s *sign.Signer)     { s.AccessKey, s.Secret = "appkey1", spec.NewSecret("appsecret1") }
func temporary(s *sign.Signer) { s.AccessKey = "AKTEMP" }

// also adds another line of a header.
func also(r *auth.Request, name, value string) *auth.Request {
	h, _ := r.Header.(headers)
	r.Header = append(slices.Clone(h), [2]string{name, value})

	return r
}

// TestBodyIsNotReadForStrangers holds that only a good key, date and, where the client states a
// digest, a good signature make the gateway read a body.
func TestBodyIsNotReadForStrangers(t *testing.T) {
	t.Parallel()

	unsigned := [2]string{"X-Sdk-Content-Sha256", "UNSIGNED-PAYLOAD"}
	stated := [2]string{"X-Sdk-Content-Sha256", hex.EncodeToString(hashOf("{}"))}
	wrong := signer()
	wrong.Secret = spec.NewSecret("guess")
	unknown := signer()
	unknown.AccessKey = "AKX"

	tests := map[string]struct {
		r     *auth.Request
		reads int
	}{
		"signed body":             {signedRequest(t, signer(), "{}"), 1},
		"stated digest":           {signedRequest(t, signer(), "{}", stated), 1},
		"unsigned payload":        {signedRequest(t, signer(), "{}", unsigned), 0},
		"bad signature, digest":   {signedRequest(t, wrong, "{}", stated), 0},
		"bad signature, unsigned": {signedRequest(t, wrong, "{}", unsigned), 0},
		"unknown key":             {signedRequest(t, unknown, "{}"), 0},
		"old date":                {signedAt(t, signer(), clock().Add(-time.Hour), "{}"), 0},
	}

	d := compile(t, world(t), nil)

	for name, test := range tests {
		reads := 0
		body := test.r.Body
		test.r.Body = func() ([]byte, error) { reads++; return body() }

		_, _ = verifier(t, auth.Config{}).Verify(d, test.r, auth.AllowDefault)

		if reads != test.reads {
			t.Errorf("%s: the body is read %d times, want %d", name, reads, test.reads)
		}
	}
}

func TestSignedBodyIsLimited(t *testing.T) {
	t.Parallel()

	v := verifier(t, auth.Config{MaxSignedBody: 10})
	d := compile(t, world(t), nil)

	if _, err := v.Verify(d, signedRequest(t, signer(), "0123456789"), auth.AllowDefault); err != nil {
		t.Error(err)
	}

	_, err := v.Verify(d, signedRequest(t, signer(), "0123456789a"), auth.AllowDefault)
	wantFault(t, err, fault.BodyTooLarge)
}

func TestFiveBadSignaturesLockTheKeyForThatSource(t *testing.T) {
	t.Parallel()

	type step struct {
		from  string
		good  bool
		after time.Duration
		code  fault.Code // Internal means accepted
	}

	const (
		ok, bad, locked = fault.Internal, fault.SignatureMismatch, fault.AccessKeyLocked
		here, elsewhere = "192.0.2.7", "198.51.100.9"
	)

	five := []step{{here, false, 0, bad}, {here, false, 1, bad}, {here, false, 2, bad}, {here, false, 3, bad}, {here, false, 4, bad}}
	then := func(s ...step) []step { return append(slices.Clone(five), s...) }

	tests := map[string][]step{
		"locked, even for the right one": then(step{here, true, 5, locked}),
		"others are not":                 then(step{elsewhere, true, 5, ok}),
		"mapped address is the same":     then(step{"::ffff:" + here, true, 5, locked}),
		"until five minutes are over":    then(step{here, true, 4*time.Nanosecond + 5*time.Minute - 1, locked}, step{here, true, 4*time.Nanosecond + 5*time.Minute, ok}),
		"then the count starts again":    then(step{here, false, 6 * time.Minute, bad}, step{here, true, 6 * time.Minute, ok}),
		"four do not lock":               append(slices.Clone(five[:4]), step{here, true, 5, ok}),
		"a good one starts the count":    append(append(slices.Clone(five[:4]), step{here, true, 5, ok}), five...),
		"an old failure does not count":  append(slices.Clone(five[:4]), step{here, false, 6 * time.Minute, bad}, step{here, true, 6 * time.Minute, ok}),
		"set back an hour, as long as before": then(step{here, true, -time.Hour, locked},
			step{here, true, 5*time.Minute - time.Hour - 1, locked}, step{here, true, 5*time.Minute - time.Hour, ok}),
		"set forward an hour, over": then(step{here, true, time.Hour, ok}),
		"set back an hour, count goes on": append(slices.Clone(five[:4]), step{here, false, -time.Hour, bad},
			step{here, true, -time.Hour, locked}),
		"same IPv6 network": {
			{"2001:db8::1", false, 0, bad},
			{"2001:db8::2", false, 0, bad},
			{"2001:db8::3", false, 0, bad},
			{"2001:db8::4", false, 0, bad},
			{"2001:db8::5", false, 0, bad},
			{"2001:db8::6", true, 0, locked},
			{"2001:db8:0:1::6", true, 0, ok},
		},
	}

	d := compile(t, world(t), nil)

	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var lockedBy []string

			v, err := auth.NewVerifier(auth.Config{}, auth.Hooks{
				Locked: func(ak string, source netip.Prefix) { lockedBy = append(lockedBy, ak+" "+source.String()) },
			})
			if err != nil {
				t.Fatal(err)
			}

			for i, s := range steps {
				sg := signer()
				if !s.good {
					sg.Secret = spec.NewSecret("guess")
				}

				r := signedAt(t, sg, clock().Add(s.after), "{}")
				r.Now, r.Remote = clock().Add(s.after), netip.MustParseAddr(s.from)

				_, err := v.Verify(d, r, auth.AllowDefault)

				var f *fault.Error
				if errors.As(err, &f) != (s.code != ok) || f != nil && f.Code != s.code {
					t.Fatalf("step %d: got %v, want code %d", i, err, s.code)
				}

				if s.code == locked && (f.RetryAfter <= 0 || f.RetryAfter > 5*time.Minute) {
					t.Errorf("step %d: retry after %v", i, f.RetryAfter)
				}
			}

			if len(lockedBy) > 1 || len(lockedBy) == 1 && !strings.HasPrefix(lockedBy[0], testAK+" ") {
				t.Errorf("locked: %v", lockedBy)
			}
		})
	}
}

// TestLockTableIsBounded floods a tiny table from many sources: a lock that holds is not pushed out.
func TestLockTableIsBounded(t *testing.T) {
	t.Parallel()

	v := verifier(t, auth.Config{LockEntries: 1})
	d := compile(t, world(t), nil)
	wrong := signer()
	wrong.Secret = spec.NewSecret("guess")

	try := func(s sign.Signer, from netip.Addr) error {
		r := signedRequest(t, s, "")
		r.Remote = from
		_, err := v.Verify(d, r, auth.AllowDefault)

		return err
	}

	here := netip.MustParseAddr("192.0.2.7")
	for range 5 {
		wantFault(t, try(wrong, here), fault.SignatureMismatch)
	}

	for i := range 1000 {
		wantFault(t, try(wrong, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})), fault.SignatureMismatch)
	}

	wantFault(t, try(signer(), here), fault.AccessKeyLocked)
}

func TestReplayCache(t *testing.T) {
	t.Parallel()

	v := verifier(t, auth.Config{ReplayEntries: 64})
	d := compile(t, world(t), nil)
	at := func(now time.Time) *auth.Request {
		r := signedRequest(t, signer(), "{}")
		r.Now = now

		return r
	}

	if _, err := v.Verify(d, at(clock()), auth.AllowDefault); err != nil {
		t.Fatal(err)
	}

	_, err := v.Verify(d, at(clock().Add(time.Second)), auth.AllowDefault)
	wantFault(t, err, fault.SignatureReplayed)

	_, err = v.Verify(d, at(clock().Add(15*time.Minute)), auth.AllowDefault)
	wantFault(t, err, fault.SignatureReplayed)

	if _, err := v.Verify(d, signedAt(t, signer(), clock().Add(time.Second), "{}"), auth.AllowDefault); err != nil {
		t.Errorf("a request of another second is new: %v", err)
	}

	other := verifier(t, auth.Config{})
	for range 2 {
		if _, err := other.Verify(d, at(clock()), auth.AllowDefault); err != nil {
			t.Errorf("without the cache: %v", err)
		}
	}
}

func TestReplayCacheTellsWhenItIsTooSmall(t *testing.T) {
	t.Parallel()

	evicted := 0

	v, err := auth.NewVerifier(auth.Config{ReplayEntries: 8}, auth.Hooks{ReplayEvicted: func() { evicted++ }})
	if err != nil {
		t.Fatal(err)
	}

	d := compile(t, world(t), nil)
	for i := range 10 {
		if _, err := v.Verify(d, signedAt(t, signer(), clock().Add(time.Duration(i)*time.Second), ""), auth.AllowDefault); err != nil {
			t.Fatal(err)
		}
	}

	if evicted != 2 {
		t.Errorf("%d evictions told, want 2", evicted)
	}
}

// TestMutatedRequestsAreRejected changes one byte of what is signed, a thousand times.
func TestMutatedRequestsAreRejected(t *testing.T) {
	t.Parallel()

	rng := rand.New(rand.NewPCG(1, 2))
	d := compile(t, world(t), nil)
	v := verifier(t, auth.Config{LockAfter: 1e6})

	for i := range 1000 {
		r := signedRequest(t, signer(), `{"data":[1,2,3]}`, [2]string{"X-Note", "note"})
		r.Query = nil

		var what string

		flip := func(b []byte) []byte {
			b = bytes.Clone(b)
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(7)

			return b
		}

		switch rng.IntN(5) {
		case 0:
			what = "method"
			r.Method = flip(r.Method)
		case 1:
			what = "path"
			r.Path = flip(r.Path)
		case 2:
			what = "body"
			body, _ := r.Body()
			body = flip(body)
			r.Body = func() ([]byte, error) { return body, nil }
		case 3:
			what = "authorization"
			set(r, "Authorization", string(flip(r.Header.Get("authorization"))))
		case 4:
			what = "note"
			set(r, "X-Note", string(flip(r.Header.Get("x-note"))))
		}

		_, err := v.Verify(d, r, auth.AllowDefault)

		var f *fault.Error
		if !errors.As(err, &f) || f.Code.Status() != http.StatusUnauthorized {
			t.Fatalf("case %d, changed %s: got %v\n%s %s\n%s", i, what, err, r.Method, r.Path, r.Header)
		}
	}
}

func TestMismatchShowsTheCanonicalRequestWithoutSecrets(t *testing.T) {
	t.Parallel()

	s := signer()
	s.Secret = spec.NewSecret("guess")
	r := signedRequest(t, s, "", [2]string{"X-Security-Token", "sts-very-secret"}, [2]string{"X-Bin", "\xff\xfe"})

	_, err := verifier(t, auth.Config{}).Verify(compile(t, world(t), nil), r, auth.AllowDefault)
	wantFault(t, err, fault.SignatureMismatch)

	text := fault.From(err).Message()
	if !strings.Contains(text, "canonicalRequest:POST|/v1/infers/"+serviceID+"/||host:infer.example.com|") {
		t.Errorf("got %q", text)
	}

	if strings.Contains(text, "very-secret") || strings.Contains(text, "\xff") {
		t.Errorf("the text shows too much: %q", text)
	}
}

func TestFromHTTP(t *testing.T) {
	t.Parallel()

	d, v := compile(t, world(t), nil), verifier(t, auth.Config{})

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := func() ([]byte, error) {
			var b bytes.Buffer
			_, err := b.ReadFrom(r.Body)

			return b.Bytes(), err
		}

		if _, err := v.Verify(d, auth.FromHTTP(r, body, clock()), auth.AllowDefault); err != nil {
			http.Error(w, err.Error(), fault.From(err).Code.Status())
		}
	}))
	defer server.Close()

	for _, target := range []string{"/", "/a%2Fb/%E4%B8%AD+x?q=a+b&q=%20&z", "/v1//x?", "/a?b?c=d"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+target, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}

		req.Header.Set("Content-Type", "text/plain")

		if err := signer().SignHTTP(req, []byte("body"), clock()); err != nil {
			t.Fatal(err)
		}

		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}

		var text bytes.Buffer
		_, _ = text.ReadFrom(res.Body)
		_ = res.Body.Close()

		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %s", target, res.Status, text.String())
		}
	}
}

func unknownSigner() sign.Signer {
	s := signer()
	s.AccessKey = "AKUNKNOWN"

	return s
}
