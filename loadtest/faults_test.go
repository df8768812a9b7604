package loadtest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/loadtest/measure"
	"github.com/sluice-gateway/sluice/loadtest/wire"
)

func TestUnsentRequestsAreCounted(t *testing.T) {
	t.Parallel()

	s := server(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-time.After(10 * time.Second):
		}
	})
	p := plan(addressOf(s))
	p.Rate, p.Shape, p.Concurrency, p.Threads, p.Timeout = 100, loadtest.Constant, 1, 1, 400*time.Millisecond
	p.Duration = 500 * time.Millisecond

	res := run(t, p)
	if res.Requests != 50 || res.Failed != 50 {
		t.Errorf("%d requests, %d failed", res.Requests, res.Failed)
	}

	text := fmt.Sprint(res.Errors)
	if !strings.Contains(text, "never sent") || !strings.Contains(text, "timeout") {
		t.Errorf("errors %v", text)
	}
}

func TestUnreachableTargets(t *testing.T) {
	t.Parallel()

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	address := ln.Addr().String()
	ln.Close()

	var de *wire.DialError
	if _, err := loadtest.Run(t.Context(), plan(address)); !errors.As(err, &de) || de.Class != measure.ConnectFailed {
		t.Errorf("%v", err)
	}
}

// TestServerThatGoesAway is gone after some requests: the rest fails, and the run ends in time.
func TestServerThatGoesAway(t *testing.T) {
	t.Parallel()

	for _, rate := range []float64{0, 200} {
		var n atomic.Int64

		s := httptest.NewUnstartedServer(nil)
		gone := make(chan struct{})
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if n.Add(1) == 20 {
				close(gone)
			}

			wait(time.Millisecond)
			w.Header().Set("Connection", "close")
		})
		s.Start()

		go func() {
			<-gone
			s.Listener.Close()
		}()

		p := plan(addressOf(s))
		p.Rate, p.Duration, p.Timeout = rate, 600*time.Millisecond, 300*time.Millisecond

		res := run(t, p)
		s.Close()

		if res.Failed == 0 || res.Failed == res.Requests || !strings.Contains(fmt.Sprint(res.Errors), "connect refused") {
			t.Errorf("rate %v: %d of %d failed: %v", rate, res.Failed, res.Requests, res.Errors)
		}
	}
}

func TestInterruptedRunReports(t *testing.T) {
	t.Parallel()

	s := server(t, func(http.ResponseWriter, *http.Request) { wait(10 * time.Millisecond) })

	for _, rate := range []float64{0, 100} {
		ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
		p := plan(addressOf(s))
		p.Duration, p.Rate = time.Hour, rate

		res, err := loadtest.Run(ctx, p)

		cancel()

		if err != nil || !res.Interrupted || res.Requests < 10 || res.Failed != 0 || res.Elapsed > 10*time.Second {
			t.Errorf("rate %v: %+v, %v", rate, res, err)
		}
	}
}

func TestPlansThatMakeNoSense(t *testing.T) {
	t.Parallel()

	for name, change := range map[string]func(*loadtest.Plan){
		"no callers":    func(p *loadtest.Plan) { p.Concurrency = 0 },
		"no time":       func(p *loadtest.Plan) { p.Duration = 0 },
		"over ceiling":  func(p *loadtest.Plan) { p.Rate, p.MaxRate = 100, 50 },
		"negative rate": func(p *loadtest.Plan) { p.Rate = -1 },
		"absurd rate":   func(p *loadtest.Plan) { p.Rate = 1e12 },
		"no source":     func(p *loadtest.Plan) { p.NewSource = nil },
		"no time-out":   func(p *loadtest.Plan) { p.Timeout = 0 },
		"shape":         func(p *loadtest.Plan) { p.Rate, p.Shape = 1, "square" },
	} {
		p := plan("127.0.0.1:1")
		change(&p)

		if _, err := loadtest.Run(t.Context(), p); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

func TestRunEndsWhenItIsStable(t *testing.T) {
	t.Parallel()

	s := server(t, func(http.ResponseWriter, *http.Request) { wait(50 * time.Millisecond) })
	p := plan(addressOf(s))
	p.Rate, p.Shape, p.Concurrency, p.Duration, p.UntilStable = 40, loadtest.Constant, 20, time.Minute, time.Second

	res := run(t, p)
	if !res.Stable || len(res.Windows) != 3 || res.Interrupted || res.Elapsed < 3*time.Second || res.Elapsed > 50*time.Second {
		t.Errorf("stable %v after %v: %+v", res.Stable, res.Elapsed, res.Windows)
	}
}
