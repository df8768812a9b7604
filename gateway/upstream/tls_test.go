package upstream_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func serveTLS(t *testing.T, h http.Handler) string {
	t.Helper()

	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)

	return s.Listener.Addr().String()
}
