package identity_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth"
)

func principalOf(t *testing.T, p *platform, token string) *auth.Principal {
	t.Helper()

	who, err := p.svc.Authenticate(requestWith(token))
	must(t, err)

	return who
}

type tokenHeader string

func (h tokenHeader) Get(name string) []byte {
	if name == "x-auth-token" {
		return []byte(h)
	}

	return nil
}

func (h tokenHeader) Each(f func(name, value []byte) bool) { f([]byte("x-auth-token"), []byte(h)) }

func requestWith(token string) *auth.Request {
	return &auth.Request{Header: tokenHeader(token), Now: time.Now()}
}

func kid(t *testing.T, token string) string {
	t.Helper()

	head, _, _ := strings.Cut(token, ".")
	data, err := base64.RawURLEncoding.DecodeString(head)
	must(t, err)

	var h struct {
		KID string `json:"kid"`
	}

	must(t, json.Unmarshal(data, &h))

	return h.KID
}

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()

	return context.WithCancel(t.Context())
}
