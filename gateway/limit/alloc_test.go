//go:build !race

package limit_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/spec"
)

func TestAllocsAdmit(t *testing.T) {
	all := limit.Rate{PerSecond: 1e9}
	l := newLocal(t, limit.Config{Global: all, Project: all, Principal: all, App: all, Service: all, Concurrency: 10})
	s := l.Service("s", "p", spec.Limits{})
	who, ctx, from := limit.Who{Principal: "user:1", App: "app1"}, t.Context(), netip.MustParseAddr("192.0.2.1")

	var ticket limit.Ticket

	if n := testing.AllocsPerRun(500, func() {
		if l.Suspect(from, time.Now()) || l.Refused(from, time.Now()) != nil || l.Admit(ctx, s, who, &ticket) != nil {
			t.Fatal("refused")
		}

		ticket.Release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
