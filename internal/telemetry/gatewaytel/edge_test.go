package gatewaytel_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/telemetry/gatewaytel"
)

func record(service, model string, o gateway.Outcome, status int) *gateway.Record {
	return &gateway.Record{ServiceID: service, Model: model, Outcome: o, Status: status, Total: 3 * time.Millisecond, BytesIn: 10, BytesOut: 20}
}

func TestRequestsAreCountedByServiceOutcomeAndClass(t *testing.T) {
	t.Parallel()

	reg := prometheus.NewPedanticRegistry()
	h, _ := gatewaytel.Edge(reg)

	for range 3 {
		h.Started(edge.DoorHTTP)
		h.Ended(edge.DoorHTTP, record("s1", "digits/1", gateway.Served, 200))
	}

	h.Started(edge.DoorHTTPS)
	h.Ended(edge.DoorHTTPS, record("made-up-by-a-client", "", gateway.RejectedNotFound, 404))
	h.Started(edge.DoorHTTPS)
	h.Rejected(edge.DoorHTTP, fault.HeadersTooLarge)
	h.Opened(edge.DoorHTTP)
	h.Opened(edge.DoorHTTP)
	h.Closed(edge.DoorHTTP, time.Second)
	h.Refused(edge.DoorHTTPS, edge.RefusedTLS)
	h.Draining(true, 4, 0)
	h.Draining(false, 0, 2)

	got := lines(t, reg)

	for _, want := range []string{
		`sluice_drain_forced_total 2`,
		`sluice_draining 0`,
		`sluice_edge_connections{door="http"} 1`,
		`sluice_edge_connections_total{door="http"} 2`,
		`sluice_edge_connections_refused_total{door="https",reason="tls_handshake"} 1`,
		`sluice_edge_rejected_total{door="http",reason="headers_too_large"} 1`,
		`sluice_model_requests_total{model="digits/1",service="s1"} 3`,
		`sluice_request_body_bytes_total 40`,
		`sluice_response_bytes_total 80`,
		`sluice_request_duration_seconds_count{service="s1"} 3`,
		`sluice_requests_in_flight{door="http"} 0`,
		`sluice_requests_in_flight{door="https"} 1`,
		`sluice_requests_total{code="2xx",outcome="served",service="s1"} 3`,
		`sluice_requests_total{code="4xx",outcome="rejected_not_found",service="_none"} 1`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("missing %s", want)
		}
	}

	if text := strings.Join(got, "\n"); strings.Contains(text, "made-up") {
		t.Error("a client made a series")
	}
}

// lines is what a scrape of reg gives.
func lines(t *testing.T, reg *prometheus.Registry) []string {
	t.Helper()

	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", http.NoBody))

	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}

	return strings.Split(w.Body.String(), "\n")
}

func TestSeriesAreCapped(t *testing.T) {
	t.Parallel()

	reg := prometheus.NewPedanticRegistry()
	h, _ := gatewaytel.Edge(reg)

	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2500 {
				h.Ended(edge.DoorHTTP, record("s"+strconv.Itoa(g*2500+i), "m", gateway.Served, 200))
				h.Ended(edge.DoorHTTP, record("s0", "m"+strconv.Itoa(i), gateway.Served, 200))
			}
		})
	}

	wg.Wait()

	for name, most := range map[string]int{"sluice_requests_total": 2001, "sluice_model_requests_total": 2001 + 52} {
		n := 0

		for _, l := range lines(t, reg) {
			if strings.HasPrefix(l, name+"{") {
				n++
			}
		}

		if n > most || n < 2000 {
			t.Errorf("%s has %d series", name, n)
		}
	}
}

// The series of a service and of its models go with them, and requests that end later do not
// bring them back; a service that comes back has series again.
func TestSeriesGoWithTheirService(t *testing.T) {
	t.Parallel()

	reg := prometheus.NewPedanticRegistry()
	h, services := gatewaytel.Edge(reg)

	has := func(text string) bool { return strings.Contains(strings.Join(lines(t, reg), "\n"), text) }

	use := func(service, model string) {
		rec := record(service, model, gateway.Served, 200)
		rec.CloseCode = 1000

		h.Started(edge.DoorHTTP)
		h.Ended(edge.DoorHTTP, rec)
		h.Started(edge.DoorHTTP)
		h.SocketOpened(edge.DoorHTTP, rec)
		h.SocketClosed(edge.DoorHTTP, rec)
	}

	for round := range 3 {
		services.Added("s1", "")
		services.Added("s1", "digits/1")
		services.Added("s1", "digits/2")
		use("s1", "digits/1")
		use("s1", "digits/2")
		use("s2", "digits/1")

		for _, series := range []string{
			`sluice_requests_total{code="2xx",outcome="served",service="s1"} 4`, `sluice_request_duration_seconds_count{service="s1"} 4`,
			`sluice_model_requests_total{model="digits/1",service="s1"} 2`, `sluice_websocket_closed_total{code="1000",service="s1"} 2`,
		} {
			if !has(series) {
				t.Errorf("round %d: missing %s", round, series)
			}
		}

		services.Removed("s1", "digits/1")
		use("s1", "digits/1")

		if has(`model="digits/1",service="s1"`) || !has(`model="digits/2",service="s1"`) || !has(`model="digits/1",service="s2"`) {
			t.Errorf("round %d: the series of one model did not go alone", round)
		}

		services.Added("s1", "digits/1")
		use("s1", "digits/1")

		if !has(`sluice_model_requests_total{model="digits/1",service="s1"} 2`) {
			t.Errorf("round %d: a model that came back has no series", round)
		}

		services.Removed("s1", "")
		use("s1", "digits/1")
		use("s1", "digits/3")

		if has(`service="s1"`) || !has(`service="s2"`) {
			t.Errorf("round %d: the series of one service did not go alone", round)
		}
	}
}

// However many services come and go, each has series of its own while it is there.
func TestServicesThatWentMakeRoom(t *testing.T) {
	t.Parallel()

	reg := prometheus.NewPedanticRegistry()
	h, services := gatewaytel.Edge(reg)

	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2500 {
				id := "s" + strconv.Itoa(g*2500+i)
				services.Added(id, "")
				services.Added(id, "m/1")
				h.Ended(edge.DoorHTTP, record(id, "m/1", gateway.Served, 200))
				services.Removed(id, "m/1")
				h.Ended(edge.DoorHTTP, record(id, "m/1", gateway.Served, 200))
				services.Removed(id, "")
				h.Ended(edge.DoorHTTP, record(id, "m/1", gateway.Served, 200))
			}
		})
	}

	wg.Wait()

	h.Ended(edge.DoorHTTP, record("last", "m/1", gateway.Served, 200))

	text := strings.Join(lines(t, reg), "\n")
	if strings.Contains(text, `service="s`) || !strings.Contains(text, `service="last"`) {
		t.Errorf("got\n%.2000s", text)
	}
}

func BenchmarkEnded(b *testing.B) {
	h, _ := gatewaytel.Edge(prometheus.NewPedanticRegistry())
	r := record("service", "digits/1", gateway.Served, 200)

	b.ReportAllocs()

	for b.Loop() {
		h.Started(edge.DoorHTTP)
		h.Ended(edge.DoorHTTP, r)
	}
}

func TestWebSocketsHaveMetricsOfTheirOwn(t *testing.T) {
	t.Parallel()

	reg := prometheus.NewPedanticRegistry()
	h, _ := gatewaytel.Edge(reg)
	rec := record("s1", "chat/1", gateway.Served, 101)

	for range 3 {
		h.Started(edge.DoorHTTPS)
		h.SocketOpened(edge.DoorHTTPS, rec)
	}

	over := *rec
	over.CloseCode, over.MessagesIn, over.MessagesOut, over.BytesIn, over.BytesOut, over.Total = 4711, 7, 8, 100, 200, time.Hour
	h.SocketClosed(edge.DoorHTTPS, &over)

	over.CloseCode = 1001
	h.SocketClosed(edge.DoorHTTPS, &over)

	got := lines(t, reg)

	for _, want := range []string{
		`sluice_websocket_connections{door="https"} 1`,
		`sluice_websocket_connections_total{door="https"} 3`,
		`sluice_websocket_closed_total{code="1001",service="s1"} 1`,
		`sluice_websocket_closed_total{code="4000",service="s1"} 1`,
		`sluice_websocket_messages_total{direction="in"} 14`,
		`sluice_websocket_messages_total{direction="out"} 16`,
		`sluice_websocket_bytes_total{direction="out"} 400`,
		`sluice_websocket_duration_seconds_count 2`,
		`sluice_requests_in_flight{door="https"} 0`,
		`sluice_requests_total{code="1xx",outcome="served",service="s1"} 3`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("missing %s", want)
		}
	}
}
