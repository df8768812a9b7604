package auth

import (
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"
	"time"
)

// FromHTTP describes a request of net/http, as its server hands it over. body is called at most
// once, and only if a signature covers the body; nil means that there is none.
func FromHTTP(r *http.Request, body func() ([]byte, error), now time.Time) *Request {
	path, query, _ := strings.Cut(rawTarget(r), "?")

	var remote netip.Addr
	if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		remote = ap.Addr()
	}

	return &Request{
		Method: []byte(r.Method), Path: []byte(path), Query: []byte(query), Host: []byte(r.Host),
		Header: httpHeaders(r.Header), Remote: remote, TLS: r.TLS != nil, Now: now, Body: body,
	}
}

// rawTarget is the target as on the request line, without scheme and host.
func rawTarget(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		return r.RequestURI
	}

	return r.URL.RequestURI()
}

type httpHeaders http.Header

// Get implements Headers.
func (h httpHeaders) Get(name string) []byte {
	if values := h[textproto.CanonicalMIMEHeaderKey(name)]; len(values) > 0 {
		return []byte(values[0])
	}

	return nil
}

// Each implements Headers. Lines of different names come in no order, which signatures do not mind.
func (h httpHeaders) Each(f func(name, value []byte) bool) {
	for name, values := range h {
		for _, v := range values {
			if !f([]byte(name), []byte(v)) {
				return
			}
		}
	}
}
