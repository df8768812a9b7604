package system_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// workersOf lists the workers whose command line names dir, whoever is their parent.
func workersOf(tb testing.TB, dir string) []int {
	tb.Helper()

	return processesOf(tb, "sluice-runtime", dir)
}

// enginesOf lists the supervisors of custom engines, whose logs are below dir.
func enginesOf(tb testing.TB, dir string) []int {
	tb.Helper()

	return processesOf(tb, "\x00supervise\x00", dir)
}

func processesOf(tb testing.TB, program, dir string) []int {
	tb.Helper()

	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		tb.Fatal(err)
	}

	var pids []int

	for _, path := range found {
		cmd, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(cmd, []byte(program)) || !bytes.Contains(cmd, []byte(dir)) {
			continue
		}

		stat, err := os.ReadFile(filepath.Join(filepath.Dir(path), "stat"))
		if err != nil {
			continue
		}

		rest := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && rest[0] != "Z" {
			pids = append(pids, pid)
		}
	}

	slices.Sort(pids)

	return pids
}

// killWorkersOf makes sure that a test leaves none, whatever went wrong.
func killWorkersOf(tb testing.TB, dir string) {
	tb.Helper()
	tb.Cleanup(func() {
		for _, pid := range append(workersOf(tb, dir), enginesOf(tb, dir)...) {
			syscall.Kill(-pid, syscall.SIGKILL)
		}
	})
}

// TestControlIsReplaced kills, stops and restarts control processes under load: the workers stay, and
// no request fails.
func TestControlIsReplaced(t *testing.T) {
	t.Parallel()

	c := newChaos(t, 1)
	c.build()

	for i := range 2 {
		c.clients.Go(func() { c.client(uint64(i), i == 1) })
	}

	t.Cleanup(func() { c.done.Store(true) })

	workers := workersOf(t, c.dir)
	if len(workers) != 2 {
		t.Fatalf("workers: %v", workers)
	}

	for _, tc := range []struct {
		name string
		do   func()
	}{
		{"leader killed, another takes over", c.killLeader},
		{"leader stopped, another takes over", c.stopLeader},
		{"leader killed again", c.killLeader},
		{"standby restarted, and at once the leader stopped", func() {
			c.restartStandby()
			c.stopLeader()
		}},
		{"both killed, one started again", func() {
			c.standby.kill()
			c.lead.kill()
			c.pause(500 * time.Millisecond)
			c.restartBoth()
		}},
	} {
		at := c.failed.Load()

		tc.do()
		c.settle()

		if now := workersOf(t, c.dir); !slices.Equal(now, workers) {
			t.Errorf("%s: workers %v, before %v\n%s", tc.name, now, workers, c.lead.log.tail())
		}

		if n := c.failed.Load() - at; n > 0 {
			t.Errorf("%s: %d requests failed; the first: %v", tc.name, n, c.first.Load())
		}
	}

	// What was taken over can be upgraded, scaled, and ended.
	c.upgrade(1, 0)
	c.settle()
	c.lead.eventually(30*time.Second, "other workers", func() bool {
		now := workersOf(t, c.dir)

		return len(now) == 2 && !contains(now, workers[0]) && !contains(now, workers[1])
	})

	adopted := workersOf(t, c.dir)

	c.killLeader()
	c.settle()

	// One that dies is replaced, though it is not a child.
	syscall.Kill(adopted[0], syscall.SIGKILL)
	c.lead.eventually(30*time.Second, "a replacement", func() bool {
		now := workersOf(t, c.dir)

		return len(now) == 2 && !contains(now, adopted[0])
	})
	c.settle()

	c.done.Store(true)
	c.clients.Wait()

	if c.failed.Load() > 0 || c.sent.Load() == 0 {
		t.Errorf("%d of %d requests failed; the first: %v", c.failed.Load(), c.sent.Load(), c.first.Load())
	}

	for _, s := range []*sluice{c.standby, c.lead} {
		if code := s.stop(40 * time.Second); code != 0 {
			t.Errorf("exit code %d\n%s", code, s.log.tail())
		}
	}

	if left := workersOf(t, c.dir); len(left) > 0 {
		t.Errorf("workers %v outlive the last control process\n%s\n%s", left, c.standby.log.tail(), c.lead.log.tail())
	}
}

// TestLastControlEndsAllWorkers stops both control processes at the same time, and once the one that
// just lost its leader: whoever is last ends the workers, whether or not it ever led.
func TestLastControlEndsAllWorkers(t *testing.T) {
	t.Parallel()

	for name, stop := range map[string]func(c *chaos) []*sluice{
		"together": func(c *chaos) []*sluice { return []*sluice{c.lead, c.standby} },
		"after a killed leader": func(c *chaos) []*sluice {
			c.lead.kill()

			return []*sluice{c.standby}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c := newChaos(t, 1)
			c.build()

			list := stop(c)
			for _, s := range list {
				s.cmd.Process.Signal(syscall.SIGTERM)
			}

			for _, s := range list {
				<-s.exited

				if code := s.cmd.ProcessState.ExitCode(); code != 0 {
					t.Errorf("exit code %d\n%s", code, s.log.tail())
				}
			}

			if left := workersOf(t, c.dir); len(left) > 0 {
				t.Errorf("workers %v are left\n%s", left, c.standby.log.tail())
			}
		})
	}
}

// TestOrphansEnd kills the only control process for good: its workers serve on, and end in time.
func TestOrphansEnd(t *testing.T) {
	t.Parallel()

	c := newChaos(t, 1)
	c.orphan = "3s"
	c.build()
	c.standby.kill()
	c.lead.kill()

	began := time.Now()

	c.gateways[0].eventually(20*time.Second, "end of the orphans", func() bool { return len(workersOf(t, c.dir)) == 0 })

	if d := time.Since(began); d < 2*time.Second {
		t.Errorf("they ended after %v", d)
	}
}

// killLeader kills the leader; the standby takes over, and another one stands by.
func (c *chaos) killLeader() {
	c.lead.kill()
	c.promote()
}

// stopLeader stops the leader, which leaves its workers to the standby.
func (c *chaos) stopLeader() {
	if code := c.lead.stop(40 * time.Second); code != 0 {
		c.t.Errorf("the leader ended with %d\n%s", code, c.lead.log.tail())
	}

	c.promote()
}

func (c *chaos) promote() {
	former := c.lead
	c.lead = c.standby
	c.lead.Boot, c.lead.token = former.Boot, former.token
	c.standby = startAs(c.t, "control", former.data, c.config)

	c.waitLeader()
}

func (c *chaos) restartBoth() {
	boot, token := c.lead.Boot, c.lead.token
	c.lead = startAs(c.t, "control", c.lead.data, c.config)
	c.lead.Boot, c.lead.token = boot, token
	c.waitLeader()
	c.standby = startAs(c.t, "control", c.standby.data, c.config)
}

// waitLeader waits until the rollout carries out a change.
func (c *chaos) waitLeader() {
	c.restarts++

	a := c.lead.call("PUT", c.lead.api("/services/"+c.service), map[string]any{"description": fmt.Sprint("change ", c.restarts)})
	if a.Status != http.StatusOK {
		c.t.Fatalf("update: %d %s", a.Status, a.Body)
	}

	c.lead.eventually(60*time.Second, "leader", func() bool {
		return strings.Contains(c.lead.log.String(), "leads the rollout") || strings.Contains(c.standby.log.String(), "leads the rollout")
	})
}

// smallGateway runs on a disk of its own, if that is possible here.
func (c *chaos) smallGateway() *sluice {
	data := filepath.Join(c.dir, "gateway1")

	if exec.Command("unshare", "-m", "true").Run() != nil {
		return startAs(c.t, "gateway", data, c.config)
	}

	if err := os.MkdirAll(data, 0o700); err != nil {
		c.t.Fatal(err)
	}

	return startIn(c.t, inNamespace(`mount -t tmpfs -o size=16m none "$1"`, data, "-"), "gateway", data, c.config)
}

// fullDisk fills the disk of a gateway while its plan changes.
func (c *chaos) fullDisk() {
	g := c.gateways[1]
	if g.root == "" {
		return
	}

	g.fillDisk()
	c.weights()
	c.settle()
	g.emptyDisk()
}

// etcdAway stops etcd for up to longer than a lease lasts.
func (c *chaos) etcdAway() {
	c.etcd.stop()
	c.pause(time.Duration(1+c.rng.IntN(7)) * time.Second)
	c.etcd.start()
	c.lead.eventually(60*time.Second, "control with etcd", func() bool {
		a := c.lead.call("PUT", c.lead.api("/services/"+c.service), map[string]any{"description": "after etcd"})

		return a.Status == http.StatusOK
	})
}

// TestGatewaysCatchUpWhenEtcdReturns: after an absence of etcd of any length, gateways and control know of
// changes within moments, not when a back-off that grew meanwhile is over.
func TestGatewaysCatchUpWhenEtcdReturns(t *testing.T) {
	t.Parallel()

	c := newChaos(t, 1)
	c.build()
	c.etcd.stop()

	away := time.NewTimer(9 * time.Second)
	<-away.C

	c.etcd.start()

	began := time.Now()
	body := map[string]any{"config": []any{entry(c.models[1], 100, 1, nil)}}

	c.lead.eventually(20*time.Second, "change", func() bool {
		return c.lead.call("PUT", c.lead.api("/services/"+c.service), body).Status == http.StatusOK
	})

	if changed := time.Since(began); changed > 3*time.Second {
		t.Errorf("control takes changes %v after etcd is back", changed)
	}

	c.settle() // the new version starts, which takes as long as it takes

	began = time.Now()

	for i, g := range c.gateways {
		g.token = c.token

		g.eventually(20*time.Second, "the new version", func() bool {
			sent, raw, err := question(1, 1)
			if err != nil {
				t.Fatal(err)
			}

			a := g.call("POST", g.Edge+"/v1/infers/"+c.service+"/v2/models/echo/infer", raw, "Content-Type", "application/json")
			if a.Status != http.StatusOK || checkEcho(a.Body, sent) != nil {
				t.Errorf("gateway %d: %d %s", i, a.Status, a.Body)
			}

			return a.Header.Get("X-Sluice-Model") == "echo/1.0.1"
		})
	}

	if used := time.Since(began); used > 2*time.Second {
		t.Errorf("gateways use the new version %v after the upgrade", used)
	}
}
