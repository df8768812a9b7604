package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// Request is one call of an operation.
type Request struct {
	HTTP      *http.Request
	ID        string
	Principal *auth.Principal

	router *Router
	vars   map[string]string
	body   []byte
	read   bool
	err    error
}

// Context ends when the client goes away.
func (r *Request) Context() context.Context { return r.HTTP.Context() }

// Var is a path parameter.
func (r *Request) Var(name string) string { return r.vars[name] }

// Remote is the address of the peer.
func (r *Request) Remote() netip.Addr { return remote(r.HTTP) }

// BaseURL is the scheme and host that the client called.
func (r *Request) BaseURL() string {
	if r.HTTP.TLS != nil {
		return "https://" + r.HTTP.Host
	}

	return "http://" + r.HTTP.Host
}

func (r *Request) limitBody(w http.ResponseWriter) {
	r.HTTP.Body = http.MaxBytesReader(w, r.HTTP.Body, r.router.cfg.MaxBodyBytes)
}

// Body reads the whole body once.
func (r *Request) Body() ([]byte, error) {
	if r.read {
		return r.body, r.err
	}

	r.read = true

	if r.HTTP.ContentLength > r.router.cfg.MaxBodyBytes {
		r.err = fault.New(fault.BodyTooLarge, "")

		return nil, r.err
	}

	if enc := r.HTTP.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		r.err = fault.New(fault.BadEncoding, "The content encoding is not supported.")

		return nil, r.err
	}

	body, err := io.ReadAll(r.HTTP.Body)

	switch {
	case tooLarge(err):
		r.err = fault.New(fault.BodyTooLarge, "")
	case errors.Is(err, context.Canceled):
		r.err = fault.Wrap(fault.ClientGone, err, "")
	case err != nil:
		r.err = fault.Wrap(fault.BadRequest, err, "The request body cannot be read.")
	default:
		r.body = body
	}

	return r.body, r.err
}

func (r *Request) bodyUnread() bool {
	return r.HTTP.ContentLength != 0 && (!r.read || r.err != nil)
}

// Decode reads the body as a JSON value into dst. See Unmarshal.
func (r *Request) Decode(dst any) error {
	body, err := r.Body()
	if err != nil {
		return err
	}

	return Unmarshal(body, r.router.cfg.MaxDepth, dst)
}

// DecodeOptional is Decode for a body that may be missing.
func (r *Request) DecodeOptional(dst any) error {
	body, err := r.Body()
	if err != nil || len(strings.TrimSpace(string(body))) == 0 {
		return err
	}

	return Unmarshal(body, r.router.cfg.MaxDepth, dst)
}

// authRequest shows the request to the verifiers as it came.
func (r *Request) authRequest() *auth.Request {
	hr := r.HTTP
	path, query, _ := strings.Cut(hr.RequestURI, "?")

	if !strings.HasPrefix(path, "/") { // absolute form
		path = hr.URL.EscapedPath()
	}

	return &auth.Request{
		Method: []byte(hr.Method),
		Path:   []byte(path),
		Query:  []byte(query),
		Host:   []byte(hr.Host),
		Header: headers{hr},
		Remote: remote(hr),
		TLS:    hr.TLS != nil,
		Now:    r.router.cfg.Now(),
		Body:   r.Body,
	}
}

// headers shows the headers of net/http by their names in lower case.
type headers struct{ r *http.Request }

// Get implements auth.Headers.
func (h headers) Get(name string) []byte {
	if values := h.r.Header.Values(name); len(values) > 0 {
		return []byte(values[0])
	}

	if v, ok := h.hidden(name); ok {
		return []byte(v)
	}

	return nil
}

// hidden are headers that net/http takes out.
func (h headers) hidden(name string) (string, bool) {
	switch {
	case name == "host":
		return h.r.Host, true
	case name == "content-length" && h.r.ContentLength >= 0:
		return strconv.FormatInt(h.r.ContentLength, 10), h.r.ContentLength > 0 || h.r.Method != http.MethodGet
	default:
		return "", false
	}
}

// Each implements auth.Headers.
func (h headers) Each(f func(name, value []byte) bool) {
	for _, name := range []string{"host", "content-length"} {
		if v, ok := h.hidden(name); ok && !f([]byte(name), []byte(v)) {
			return
		}
	}

	for name, values := range h.r.Header {
		for _, v := range values {
			if !f([]byte(strings.ToLower(name)), []byte(v)) {
				return
			}
		}
	}
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}

	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}

	return true
}
