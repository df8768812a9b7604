package upstream_test

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway/gatewaytest"
	"github.com/sluice-gateway/sluice/gateway/upstream"
	"github.com/sluice-gateway/sluice/link"
	"github.com/sluice-gateway/sluice/spec"
)

// linkServer answers calls over a link and returns its address.
func linkServer(t *testing.T, h link.Handler) (*link.Server, string) {
	t.Helper()

	path := filepath.Join(t.TempDir(), "l.sock")

	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}

	return startLink(t, ln, h), "unix:" + path
}

func startLink(t *testing.T, ln net.Listener, h link.Handler) *link.Server {
	t.Helper()

	s := link.NewServer(link.ServerConfig{}, h)
	done := make(chan error, 1)

	go func() { done <- s.Serve(ln) }()

	t.Cleanup(func() {
		s.Close()

		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	return s
}

// useLinked puts instances with links into force; each has the HTTP address beside it.
func (b *bench) useLinked(pairs ...[2]string) {
	b.t.Helper()

	v := &b.route.Versions[0]
	v.Instances = nil

	for _, p := range pairs {
		v.Instances = append(v.Instances, spec.Instance{
			ID: "i-" + p[0], State: spec.InstanceReady, Network: "tcp", Address: p[0], LinkAddress: p[1],
		})
	}

	b.apply()
}

func TestSmallCallsTakeTheLinkAndLargeOnesHTTP(t *testing.T) {
	t.Parallel()

	var overHTTP, overLink atomic.Int64

	_, linked := linkServer(t, func(r *link.Request) {
		overLink.Add(1)

		var h link.Header

		h.Add("Content-Type", []byte("application/json"))
		h.Add("X-Seen-Path", r.Path)
		h.Add("X-Seen-Type", r.Header.Get("content-type"))
		h.Add("X-Seen-Token", r.Header.GetFold("X-Auth-Token"))
		h.Add("X-Seen-Id", r.Header.Get("x-request-id"))
		r.Respond(http.StatusOK, &h, r.Body)
	})
	plain := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		overHTTP.Add(1)
		w.WriteHeader(http.StatusOK)
	})

	b := newBench(t, upstream.Config{})
	b.useLinked([2]string{plain, linked})

	out := b.do("POST", "/v1/infers/svc/a/b?x=1", "small", [2]string{"Content-Type", "application/json"}, [2]string{"X-Auth-Token", "secret"})
	if out.Status != 200 || string(out.Body) != "small" || string(out.Headers.Get("x-seen-path")) != "/a/b?x=1" ||
		string(out.Headers.Get("x-seen-type")) != "application/json" || string(out.Headers.Get("x-seen-token")) != "" ||
		string(out.Headers.Get("x-seen-id")) == "" || string(out.Headers.Get("x-sluice-model")) != "digits/1.0.0" {
		t.Errorf("over the link: %d %q %v", out.Status, out.Body, out.Headers)
	}

	out = b.do("POST", "/v1/infers/svc", strings.Repeat("x", link.MaxBody+1))
	if out.Status != 200 || overHTTP.Load() != 1 || overLink.Load() != 1 {
		t.Errorf("a large body: %d, %d over HTTP, %d over the link", out.Status, overHTTP.Load(), overLink.Load())
	}
}

func TestLostLinkIsTriedElsewhere(t *testing.T) {
	t.Parallel()

	var dying *link.Server

	started := make(chan struct{}, 8)
	first, address1 := linkServer(t, func(r *link.Request) {
		started <- struct{}{}

		<-r.Context().Done()
		r.Respond(http.StatusOK, nil, nil)
	})
	dying = first
	_, address2 := linkServer(t, func(r *link.Request) { r.Respond(http.StatusOK, nil, []byte("second")) })

	b := newBench(t, upstream.Config{})
	b.useLinked([2]string{"127.0.0.1:1", address1})

	done := make(chan *gatewaytest.Out, 1)
	go func() { done <- b.do("POST", "/v1/infers/svc", "x") }()

	<-started
	b.useLinked([2]string{"127.0.0.1:1", address1}, [2]string{"127.0.0.1:2", address2})
	dying.Close()

	if out := <-done; out.Status != 200 || string(out.Body) != "second" {
		t.Errorf("got %d %s", out.Status, out.Body)
	}
}

func TestDrainingLinkIsNotChosen(t *testing.T) {
	t.Parallel()

	first, address1 := linkServer(t, func(r *link.Request) { r.Respond(http.StatusOK, nil, []byte("first")) })
	_, address2 := linkServer(t, func(r *link.Request) { r.Respond(http.StatusOK, nil, []byte("second")) })

	b := newBench(t, upstream.Config{})
	b.useLinked([2]string{"127.0.0.1:1", address1}, [2]string{"127.0.0.1:2", address2})

	for range 20 {
		b.do("POST", "/v1/infers/svc", "x")
	}

	first.Drain()

	seen := map[string]int{}

	for range 100 {
		out := b.do("POST", "/v1/infers/svc", "x")
		if out.Status != 200 {
			t.Fatalf("%d %s", out.Status, out.Body)
		}

		seen[string(out.Body)]++
	}

	if seen["second"] < 90 {
		t.Errorf("answers by %v", seen)
	}
}

func TestLinkDeadlineAndVanishedClient(t *testing.T) {
	t.Parallel()

	cancelled := make(chan struct{}, 2)
	_, address := linkServer(t, func(r *link.Request) {
		<-r.Context().Done()

		cancelled <- struct{}{}

		r.Respond(http.StatusOK, nil, nil)
	})

	b := newBench(t, upstream.Config{})
	b.route.Policy.Limits.TimeoutSeconds = 0.1
	b.useLinked([2]string{"127.0.0.1:1", address})

	if out := b.do("POST", "/v1/infers/svc", "x"); out.Status != http.StatusGatewayTimeout {
		t.Errorf("deadline: %d %s", out.Status, out.Body)
	}

	<-cancelled

	b.route.Policy.Limits.TimeoutSeconds = 30
	b.apply()

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()

	c, out := gatewaytest.NewCall(ctx, "POST", "/v1/infers/svc", []byte("x"))
	b.gateway.Do(c)

	if out.Status != 499 {
		t.Errorf("vanished client: %d %s", out.Status, out.Body)
	}

	<-cancelled
}

// An instance that leaves the plan, because it drains, ends what it was given.
func TestCallsOnTheLinkOutliveTheInstance(t *testing.T) {
	t.Parallel()

	started, goOn := make(chan struct{}), make(chan struct{})
	_, address := linkServer(t, func(r *link.Request) {
		close(started)
		<-goOn
		r.Respond(http.StatusOK, nil, []byte("late"))
	})

	b := newBench(t, upstream.Config{})
	b.route.Versions[0].Engine = spec.EngineCustom // not retried: a cut call would show
	b.useLinked([2]string{"127.0.0.1:1", address})

	done := make(chan *gatewaytest.Out, 1)
	go func() { done <- b.do("POST", "/v1/infers/svc", "x") }()

	<-started
	b.useLinked()
	close(goOn)

	if out := <-done; out.Status != 200 || string(out.Body) != "late" {
		t.Errorf("got %d %s", out.Status, out.Body)
	}
}
