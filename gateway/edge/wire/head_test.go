package wire_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/gateway/edge/wire"
	"github.com/sluice-gateway/sluice/internal/fault"
)

func limits() *wire.Limits { return &wire.Limits{Line: 512, Field: 512, Head: 2048, Fields: 20} }

// request builds a head from a request line and fields.
func request(line string, fields ...string) string {
	return line + "\r\n" + strings.Join(append(fields, "", ""), "\r\n")
}

func parse(raw string) (*wire.Head, *fault.Error) {
	h := &wire.Head{}

	return h, h.Parse([]byte(raw), "http", limits())
}

const (
	get  = "GET /t HTTP/1.1"
	post = "POST /t HTTP/1.1"
	host = "Host: example.test"
)

func TestHeadGivesWhatWasSent(t *testing.T) {
	t.Parallel()

	h, err := parse(request("POST /v1/infers/x/y?a=b%20c&d HTTP/1.1", host, "Content-Length: \t 0012 ", "X-A:", "x-b: a, \xe9 b", "X-B: second"))
	if err != nil {
		t.Fatal(err)
	}

	for name, pair := range map[string][2]string{
		"method": {string(h.Method), "POST"},
		"target": {string(h.Target), "/v1/infers/x/y?a=b%20c&d"},
		"path":   {string(h.Path), "/v1/infers/x/y"},
		"query":  {string(h.Query), "a=b%20c&d"},
		"host":   {string(h.Host), "example.test"},
		"x-b":    {string(h.Get("x-b")), "a, \xe9 b"},
		"length": {strconv.FormatInt(h.Length, 10), "12"},
		"count":  {strconv.Itoa(h.Count()), "5"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %q, want %q", name, pair[0], pair[1])
		}
	}

	if v := h.Get("x-a"); v == nil || len(v) != 0 {
		t.Errorf("an empty field is %v", v)
	}

	if h.Get("x-c") != nil || h.Close || h.HTTP10 || h.Expect || h.Upgrade {
		t.Errorf("%+v", h)
	}

	if name, value := h.Field(4); string(name) != "X-B" || string(value) != "second" {
		t.Errorf("%s: %s", name, value)
	}
}

// TestHeadRefuses names, for each refusal, the code that the client is told.
func TestHeadRefuses(t *testing.T) {
	t.Parallel()

	bad := fault.BadRequest

	for name, tc := range map[string]struct {
		raw  string
		code fault.Code
	}{
		"no line end":                  {"GET /t HTTP/1.1", bad},
		"bare LF":                      {"GET /t HTTP/1.1\nHost: a\n\n", bad},
		"bare LF in a field":           {get + "\r\nHost: a\nX: y\r\n\r\n", bad},
		"bare LF at the end":           {get + "\r\nHost: a\r\n\n", bad},
		"bytes after the end":          {request(get, host) + "x", bad},
		"no version":                   {request("GET /t", host), bad},
		"two spaces":                   {request("GET  /t HTTP/1.1", host), bad},
		"space at the end":             {request("GET /t HTTP/1.1 ", host), bad},
		"space in the target":          {request("GET /a b HTTP/1.1", host), bad},
		"tab":                          {request("GET\t/t HTTP/1.1", host), bad},
		"HTTP/0.9":                     {request("GET /t HTTP/0.9", host), fault.VersionNotServed},
		"HTTP/2.0":                     {request("GET /t HTTP/2.0", host), fault.VersionNotServed},
		"HTTP/1.2":                     {request("GET /t HTTP/1.2", host), fault.VersionNotServed},
		"HTTP/11":                      {request("GET /t HTTP/11", host), bad},
		"lower-case version":           {request("GET /t http/1.1", host), bad},
		"unknown method":               {request("FOO /t HTTP/1.1", host), fault.MethodNotAllowed},
		"lower-case method":            {request("get /t HTTP/1.1", host), fault.MethodNotAllowed},
		"TRACE":                        {request("TRACE /t HTTP/1.1", host), fault.MethodNotAllowed},
		"CONNECT":                      {request("CONNECT a:1 HTTP/1.1", host), fault.MethodNotAllowed},
		"no method":                    {request(" /t HTTP/1.1", host), bad},
		"method with brackets":         {request("G[T /t HTTP/1.1", host), bad},
		"fragment":                     {request("GET /t#f HTTP/1.1", host), bad},
		"raw byte":                     {request("GET /t\xff HTTP/1.1", host), bad},
		"quote":                        {request("GET /t\" HTTP/1.1", host), bad},
		"backslash":                    {request(`GET /t\..\a HTTP/1.1`, host), bad},
		"short percent":                {request("GET /t%2 HTTP/1.1", host), bad},
		"bad percent":                  {request("GET /t%zz HTTP/1.1", host), bad},
		"bad percent in the query":     {request("GET /t?a=%zz HTTP/1.1", host), bad},
		"%u":                           {request("GET /t%u002e HTTP/1.1", host), bad},
		"encoded slash":                {request("GET /a%2fb HTTP/1.1", host), bad},
		"encoded backslash":            {request("GET /a%5Cb HTTP/1.1", host), bad},
		"encoded NUL":                  {request("GET /a%00b HTTP/1.1", host), bad},
		"encoded LF":                   {request("GET /a%0ab HTTP/1.1", host), bad},
		"encoded question mark":        {request("GET /a%3fb HTTP/1.1", host), bad},
		"encoded semicolon":            {request("GET /..%3b/b HTTP/1.1", host), bad},
		"dot segment":                  {request("GET /a/./b HTTP/1.1", host), bad},
		"two dots":                     {request("GET /a/../b HTTP/1.1", host), bad},
		"two dots at the end":          {request("GET /a/.. HTTP/1.1", host), bad},
		"encoded dots":                 {request("GET /a/%2e%2E/b HTTP/1.1", host), bad},
		"half-encoded dots":            {request("GET /a/.%2e/b HTTP/1.1", host), bad},
		"dots with parameters":         {request("GET /a/..;x=y/b HTTP/1.1", host), bad},
		"empty segment":                {request("GET //a HTTP/1.1", host), bad},
		"empty segment inside":         {request("GET /a//b HTTP/1.1", host), bad},
		"relative":                     {request("GET t HTTP/1.1", host), bad},
		"query alone":                  {request("GET ?a HTTP/1.1", host), bad},
		"star with GET":                {request("GET * HTTP/1.1", host), bad},
		"authority":                    {request("GET example.test:80 HTTP/1.1", host), bad},
		"absolute without host":        {request("GET http:///t HTTP/1.1", host), bad},
		"absolute without path":        {request("GET http://example.test HTTP/1.1", host), bad},
		"absolute, other host":         {request("GET http://other.test/t HTTP/1.1", host), bad},
		"absolute, other port":         {request("GET http://example.test:81/t HTTP/1.1", host), bad},
		"absolute, userinfo":           {request("GET http://u@example.test/t HTTP/1.1", host), bad},
		"absolute, other scheme":       {request("GET https://example.test/t HTTP/1.1", host), bad},
		"absolute, file":               {request("GET file:///etc/passwd HTTP/1.1", host), bad},
		"absolute without Host header": {request("GET http://example.test/t HTTP/1.1"), bad},
		"no host":                      {request(get), bad},
		"empty host":                   {request(get, "Host:"), bad},
		"two hosts":                    {request(get, host, host), bad},
		"fold":                         {request(get, host, "X: a", " b"), bad},
		"fold first":                   {request(get, " X: a", host), bad},
		"space before the colon":       {request(get, host, "X : a"), bad},
		"space in a name":              {request(get, host, "X Y: a"), bad},
		"empty name":                   {request(get, host, ": a"), bad},
		"no colon":                     {request(get, host, "Xa"), bad},
		"underscore":                   {request(get, host, "X_Forwarded_For: 6.6.6.6"), bad},
		"NUL in a name":                {request(get, host, "X\x00: a"), bad},
		"NUL in a value":               {request(get, host, "X: aaaaaaaaaa\x00aaaaaaaaaa"), bad},
		"CR in a value":                {request(get, host, "X: a\rb"), bad},
		"ESC in a value":               {request(get, host, "X: aaaaaaaaaaaaaaa\x1b"), bad},
		"DEL in a value":               {request(get, host, "X: aaa\x7faaaaaaaaaaaa"), bad},
		"length twice":                 {request(post, host, "Content-Length: 5", "Content-Length: 5"), bad},
		"length list":                  {request(post, host, "Content-Length: 5, 5"), bad},
		"length plus":                  {request(post, host, "Content-Length: +5"), bad},
		"length minus":                 {request(post, host, "Content-Length: -0"), bad},
		"length hex":                   {request(post, host, "Content-Length: 0x5"), bad},
		"length empty":                 {request(post, host, "Content-Length: "), bad},
		"length over 64 bits":          {request(post, host, "Content-Length: 9223372036854775808"), bad},
		"length and chunked":           {request(post, host, "Content-Length: 5", "Transfer-Encoding: chunked"), bad},
		"chunked and length":           {request(post, host, "Transfer-Encoding: chunked", "Content-Length: 5"), bad},
		"chunked twice":                {request(post, host, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), bad},
		"chunked in 1.0":               {request("POST /t HTTP/1.0", host, "Transfer-Encoding: chunked"), bad},
		"identity":                     {request(post, host, "Transfer-Encoding: identity"), fault.NotImplemented},
		"gzip, chunked":                {request(post, host, "Transfer-Encoding: gzip, chunked"), fault.NotImplemented},
		"xchunked":                     {request(post, host, "Transfer-Encoding: xchunked"), fault.NotImplemented},
		"quoted chunked":               {request(post, host, `Transfer-Encoding: "chunked"`), bad},
		"empty coding":                 {request(post, host, "Transfer-Encoding: "), bad},
		"expectation":                  {request(post, host, "Expect: 200-ok", "Content-Length: 1"), fault.ExpectationFailed},
		"two expectations":             {request(post, host, "Expect: 100-continue", "Expect: 100-continue"), fault.ExpectationFailed},
		"trailer names framing":        {request(post, host, "Transfer-Encoding: chunked", "Trailer: X, content-length"), bad},
		"trailer is no name":           {request(post, host, "Transfer-Encoding: chunked", "Trailer: a b"), bad},
		"long line":                    {request("GET /"+strings.Repeat("a", 512)+" HTTP/1.1", host), fault.URITooLarge},
		"long line, long head":         {request("GET /"+strings.Repeat("a", 5000)+" HTTP/1.1", host), fault.URITooLarge},
		"long field":                   {request(get, host, "X: "+strings.Repeat("a", 512)), fault.HeadersTooLarge},
		"many fields":                  {request(get, append([]string{host}, strings.Fields(strings.Repeat("X:y ", 20))...)...), fault.HeadersTooLarge},
		"long head":                    {request(get, append([]string{host}, strings.Fields(strings.Repeat("X:"+strings.Repeat("a", 300)+" ", 9))...)...), fault.HeadersTooLarge},
	} {
		if _, err := parse(tc.raw); err == nil || err.Code != tc.code {
			t.Errorf("%s: %v, want %d", name, err, tc.code.Status())
		}
	}
}

func TestHeadAccepts(t *testing.T) {
	t.Parallel()

	for name, raw := range map[string]string{
		"plain":               request(get, host),
		"1.0 without host":    request("GET /t HTTP/1.0"),
		"absolute":            request("GET http://Example.test/t?a HTTP/1.1", host),
		"star":                request("OPTIONS * HTTP/1.1", host),
		"root":                request("GET / HTTP/1.1", host),
		"slash at the end":    request("GET /a/ HTTP/1.1", host),
		"three dots":          request("GET /a/.../b HTTP/1.1", host),
		"dots in a name":      request("GET /a/..b/b..c/.d HTTP/1.1", host),
		"encoded letters":     request("GET /%61/%E4%BD%A0%20 HTTP/1.1", host),
		"double encoding":     request("GET /%252e%252e/a HTTP/1.1", host),
		"URL in the query":    request("GET /t?u=http://evil.test//../x%2f HTTP/1.1", host),
		"empty query":         request("GET /t? HTTP/1.1", host),
		"parameters":          request("GET /a;b=c,d/e@f:g HTTP/1.1", host),
		"brackets in a query": request("GET /t?a[0]=1 HTTP/1.1", host),
		"chunked, any case":   request(post, host, "tRANSFER-eNCODING:\t cHuNkEd \t"),
		"obs-text":            request(get, host, "X: \xe9\xff"),
		"tab in a value":      request(get, host, "X: a\tbbbbbbbbbbbbb\tc"),
		"length in GET":       request(get, host, "Content-Length: 5"),
		"trailer":             request(post, host, "Transfer-Encoding: chunked", "Trailer: X-Sum, Y"),
	} {
		if _, err := parse(raw); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostForms(t *testing.T) {
	t.Parallel()

	for value, ok := range map[string]bool{
		"a": true, "A.TEST": true, "a.test.": true, "a.test:1": true, "a.test:65535": true, "127.0.0.1:80": true, "my_service:80": true,
		"[::1]": true, "[::1]:80": true, "[::ffff:1.2.3.4]": true, "xn--bcher-kva.example": true,
		"a.test:": false, "a.test:0": false, "a.test:65536": false, "a.test:080808": false, "a.test:8o": false, "a.test:80:81": false,
		"a..test": false, ".a": false, "a b": false, "u@a": false, "a/b": false, "a?b": false, "a#b": false, `a\b`: false, "a,b": false,
		"a%2etest": false, "<script>": false, `a"b`: false, "\xff.test": false, "[::1": false, "[::1]x": false, "[::1%25en0]": false,
		"[]": false, "[1.2.3.4]": false, "[::g]": false, ":80": false, strings.Repeat("a", 256): false,
	} {
		if _, err := parse(request(get, "Host: "+value)); (err == nil) != ok {
			t.Errorf("%q: %v", value, err)
		}
	}
}

func TestConnectionOptions(t *testing.T) {
	t.Parallel()

	ws := []string{host, "Connection: keep-alive, Upgrade", "Upgrade: websocket"}

	for name, tc := range map[string]struct {
		raw                   string
		close, expect, upgrad bool
	}{
		"plain":             {request(get, host), false, false, false},
		"close":             {request(get, host, "Connection: foo, CLOSE"), true, false, false},
		"close, length":     {request(post, host, "Connection: close, Content-Length", "Content-Length: 1"), true, false, false},
		"1.0":               {request("GET /t HTTP/1.0"), true, false, false},
		"1.0, keep-alive":   {request("GET /t HTTP/1.0", "Connection: keep-alive"), false, false, false},
		"1.0, both":         {request("GET /t HTTP/1.0", "Connection: keep-alive, close"), true, false, false},
		"expect":            {request(post, host, "Expect: 100-Continue", "Content-Length: 1"), false, true, false},
		"expect, chunked":   {request(post, host, "Expect: 100-continue", "Transfer-Encoding: chunked"), false, true, false},
		"expect, no body":   {request(get, host, "Expect: 100-continue"), false, false, false},
		"expect in 1.0":     {request("POST /t HTTP/1.0", "Expect: 100-continue", "Content-Length: 1"), true, false, false},
		"websocket":         {request(get, ws...), false, false, true},
		"websocket in 1.0":  {request("GET /t HTTP/1.0", ws...), false, false, false},
		"websocket by POST": {request(post, ws...), false, false, false},
		"websocket, body":   {request(get, append(ws, "Content-Length: 3")...), false, false, false},
		"h2c":               {request(get, host, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), false, false, false},
		"upgrade unnamed":   {request(get, host, "Upgrade: websocket"), false, false, false},
	} {
		h, err := parse(tc.raw)
		if err != nil {
			t.Errorf("%s: %v", name, err)

			continue
		}

		if h.Close && h.HTTP10 != tc.close && !tc.close || h.Close != tc.close && name != "1.0, keep-alive" ||
			h.Expect != tc.expect || h.Upgrade != tc.upgrad {
			t.Errorf("%s: close %v, expect %v, upgrade %v", name, h.Close, h.Expect, h.Upgrade)
		}
	}
}

// TestPrematureNeverContradictsParse feeds heads byte by byte: what is refused early must be
// refused in full, and what is acceptable in full must never be refused early.
func TestPrematureNeverContradictsParse(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		raw   string
		early bool
	}{
		"acceptable":           {request(get, host, "X: "+strings.Repeat("a", 500)), false},
		"blank line before":    {"\r\n" + request(get, host), false},
		"bare LF":              {"GET /t HTTP/1.1\nHost: a\n\n", true},
		"two LF":               {get + "\r\nHost: a\r\nX: y\n\n", true},
		"TLS":                  {"\x16\x03\x01\x02\x00\x01\x00\x01", true},
		"HTTP/2":               {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false},
		"long line, no end":    {"GET /" + strings.Repeat("a", 600), true},
		"long field, no end":   {get + "\r\nX: " + strings.Repeat("a", 600), true},
		"long head, no end":    {get + "\r\n" + strings.Repeat("X: "+strings.Repeat("a", 300)+"\r\n", 9), true},
		"many blank lines":     {strings.Repeat("\r\n", 50) + request(get, host), true},
		"space first":          {" " + request(get, host), true},
		"line of a JSON stray": {"{\"a\":1}", true},
	} {
		buf := []byte(tc.raw)
		refused := false

		from, start := 0, 0
		for n := 1; n <= len(buf) && !refused; n++ {
			if from == 0 {
				start += wire.SkipBlank(buf[start:n], start)
			}

			if wire.End(buf[start:n], from) >= 0 {
				break
			}

			refused = wire.Premature(buf[start:n], from, limits()) != nil

			if from = n - start; from == 1 && buf[start] == '\r' {
				from = 0
			}
		}

		if refused != tc.early {
			t.Errorf("%s: refused early %v", name, refused)
		}
	}
}
