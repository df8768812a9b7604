package system_test

import (
	"crypto/tls"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// restartLoad is the part of the capacity that clients ask for during the restarts.
const restartLoad = 0.8

// TestRollingRestarts replaces every process of a cluster, one after the other, RESTARTS times (2 if that is
// not set), while clients ask for 80 % of what the cluster can do.
func TestRollingRestarts(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}

	t.Parallel()

	rounds := 2
	if n, err := strconv.Atoi(os.Getenv("RESTARTS")); err == nil {
		rounds = n
	}

	c := newChaos(t, 1)
	c.build()

	capacity := c.capacity(3 * time.Second)

	const clients = 8

	rate := restartLoad * capacity

	var late atomic.Int64 // the longest answer, in ns

	for i := range clients {
		c.clients.Go(func() { c.pacedClient(uint64(i), i%2 == 1, time.Duration(clients/rate*float64(time.Second)), &late) })
	}

	t.Cleanup(func() { c.done.Store(true) })

	began := time.Now()

	for round := 1; round <= rounds && !t.Failed(); round++ {
		for _, act := range []struct {
			name string
			run  func()
		}{
			{"workers, expanding", func() { c.upgrade(1, 0) }},
			{"workers, shrinking", func() { c.upgrade(0, 1) }},
			{"first gateway", func() { c.replaceGateway(0) }},
			{"second gateway", func() { c.replaceGateway(1) }},
			{"leader", c.stopLeader},
			{"standby", c.restartStandby},
		} {
			at := c.failed.Load()

			act.run()
			c.settle()

			if n := c.failed.Load() - at; n > 0 {
				t.Errorf("round %d, %s: %d requests failed; the first: %v", round, act.name, n, c.first.Load())
			}
		}
	}

	took := time.Since(began)

	c.done.Store(true)
	c.clients.Wait()

	got := float64(c.sent.Load()) / took.Seconds()
	t.Logf("%d rounds in %v: capacity %.0f/s, asked for %.0f/s, %.0f/s answered (%.0f %% of capacity), %d requests, %d failed, the slowest %v",
		rounds, took.Round(time.Second), capacity, rate, got, 100*got/capacity, c.sent.Load(), c.failed.Load(), time.Duration(late.Load()))

	if c.failed.Load() > 0 || c.sent.Load() == 0 {
		t.Errorf("%d of %d requests failed; the first: %v", c.failed.Load(), c.sent.Load(), c.first.Load())
	}
}

// capacity is how many requests a second clients get that never pause.
func (c *chaos) capacity(d time.Duration) float64 {
	var (
		wg   sync.WaitGroup
		done atomic.Bool
		sent atomic.Int64
	)

	for i := range 8 {
		wg.Go(func() {
			cl, base, end := c.connect(i%2 == 1)
			defer end()

			for n := uint64(0); !done.Load(); n++ {
				if err := c.ask(cl, base, uint64(i), n); err != nil {
					c.t.Errorf("without any restart: %v", err)

					return
				}

				sent.Add(1)
			}
		})
	}

	c.lead.eventually(time.Minute, "requests", func() bool { return sent.Load() > 100 })

	from, began := sent.Load(), time.Now()
	timer := time.NewTimer(d)
	<-timer.C

	rate := float64(sent.Load()-from) / time.Since(began).Seconds()

	done.Store(true)
	wg.Wait()

	return rate
}

// connect makes a client with one kept connection.
func (c *chaos) connect(secure bool) (cl *http.Client, base string, end func()) {
	base = "http://" + c.plain.ln.Addr().String()
	if secure {
		base = "https://" + c.secure.ln.Addr().String()
	}

	tr := &http.Transport{MaxIdleConnsPerHost: 1, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}

	return &http.Client{Timeout: 30 * time.Second, Transport: tr}, base, tr.CloseIdleConnections
}

// pacedClient asks once an interval; one that is behind does not wait.
func (c *chaos) pacedClient(id uint64, secure bool, every time.Duration, late *atomic.Int64) {
	cl, base, end := c.connect(secure)
	defer end()

	due := time.Now()

	for n := uint64(0); !c.done.Load(); n++ {
		if wait := time.Until(due); wait > 0 {
			timer := time.NewTimer(wait)
			<-timer.C
		}

		if due = due.Add(every); time.Since(due) > time.Second {
			due = time.Now() // what was missed is not made up for
		}

		began := time.Now()
		c.report(c.ask(cl, base, id, n))

		took := int64(time.Since(began))
		for old := late.Load(); took > old && !late.CompareAndSwap(old, took); old = late.Load() {
		}
	}
}
