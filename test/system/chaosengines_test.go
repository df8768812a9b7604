package system_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// buildEngines deploys a service of custom engines, in two versions to choose from.
func (c *chaos) buildEngines(instances int) {
	dir := engineDir(c.t, "test/system/engine", engineConfig(nil))

	for v := range 2 {
		id, status := c.lead.modelOf("engine", fmt.Sprintf("1.0.%d", v), "Custom", dir)
		if status != "published" {
			c.t.Fatalf("model is %s", status)
		}

		c.versions = append(c.versions, id)
	}

	c.engines = c.lead.deploy("engine", c.versions[0], instances, nil)
	c.settle()

	for _, g := range c.gateways {
		g.eventually(20*time.Second, "answer of an engine", func() bool {
			return c.echo(&http.Client{Timeout: 10 * time.Second}, g.Edge, "first") == nil
		})
	}
}

// engineClient asks custom engines over a kept connection. Only what is in flight on a killed one may fail.
func (c *chaos) engineClient(id uint64) {
	cl, base, end := c.connect(false)
	defer end()

	for n := 0; !c.done.Load(); n++ {
		if err := c.echo(cl, base, fmt.Sprintf("%d of %d", n, id)); err != nil && !c.killing.Load() {
			c.report(fmt.Errorf("custom engine: %w", err))
		} else {
			c.report(nil)
			c.echoes.Add(1)
		}
	}
}

func (c *chaos) echo(cl *http.Client, base, text string) error {
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, base+"/v1/infers/"+c.engines+"/echo", strings.NewReader(text))
	if err != nil {
		return err
	}

	req.Header.Set("X-Auth-Token", c.token)
	req.Header.Set("Content-Type", "text/plain")

	resp, err := cl.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()

	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}

	if resp.StatusCode != http.StatusOK || string(raw) != text {
		return fmt.Errorf("status %d: sent %q, got %q", resp.StatusCode, text, raw)
	}

	return nil
}

// killEngine kills a supervisor, which takes its engine along.
func (c *chaos) killEngine() {
	engines := enginesOf(c.t, c.dir)
	if len(engines) < 2 {
		return
	}

	pid := engines[c.rng.IntN(len(engines))]
	c.killing.Store(true)
	syscall.Kill(pid, syscall.SIGKILL)
	c.lead.eventually(30*time.Second, "a new engine", func() bool {
		now := enginesOf(c.t, c.dir)

		return len(now) >= 2 && !slices.Contains(now, pid)
	})
	c.pause(500 * time.Millisecond)
	c.killing.Store(false)
}

func (c *chaos) upgradeEngines() {
	slices.Reverse(c.versions)

	body := map[string]any{"config": []any{entry(c.versions[0], 100, 2, map[string]any{"max_surge": 1})}}
	if a := c.lead.call("PUT", c.lead.api("/services/"+c.engines), body); a.Status != http.StatusOK {
		c.t.Errorf("update: %d %s", a.Status, a.Body)
	}

	c.pause(300 * time.Millisecond)
}

// TestEnginesStayWhenControlIsReplaced kills, stops and restarts control processes under load: custom engines
// stay, no request fails, and their logs go on.
func TestEnginesStayWhenControlIsReplaced(t *testing.T) {
	t.Parallel()

	c := newChaos(t, 1)
	c.build()
	c.buildEngines(2)

	for i := range 2 {
		c.clients.Go(func() { c.engineClient(uint64(i)) })
	}

	t.Cleanup(func() { c.done.Store(true) })

	engines := enginesOf(t, c.dir)
	if len(engines) != 2 {
		t.Fatalf("engines: %v", engines)
	}

	for i, tc := range []struct {
		name string
		do   func()
	}{
		{"leader killed", c.killLeader},
		{"leader stopped", c.stopLeader},
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

		if now := enginesOf(t, c.dir); !slices.Equal(now, engines) {
			t.Errorf("%s: engines %v, before %v\n%s", tc.name, now, engines, c.lead.log.tail())
		}

		if n := c.failed.Load() - at; n > 0 {
			t.Errorf("%s: %d requests failed; the first: %v", tc.name, n, c.first.Load())
		}

		c.logGoesOn(fmt.Sprint("after round ", i))
	}

	// What was taken over can be upgraded, and dies as if it were a child.
	c.upgradeEngines()
	c.settle()
	c.lead.eventually(30*time.Second, "other engines", func() bool {
		now := enginesOf(t, c.dir)

		return len(now) == 2 && !slices.Contains(now, engines[0]) && !slices.Contains(now, engines[1])
	})

	if n := c.failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed; the first: %v", n, c.sent.Load(), c.first.Load())
	}

	c.killLeader()
	c.settle()
	c.killEngine()
	c.settle()
	c.done.Store(true)
	c.clients.Wait()

	for _, s := range []*sluice{c.standby, c.lead} {
		if code := s.stop(40 * time.Second); code != 0 {
			t.Errorf("exit code %d\n%s", code, s.log.tail())
		}
	}

	if left := enginesOf(t, c.dir); len(left) > 0 {
		t.Errorf("engines %v outlive the last control process\n%s", left, c.lead.log.tail())
	}
}

// logGoesOn lets every engine print a line, and reads it where the leader says.
func (c *chaos) logGoesOn(line string) {
	c.lead.token = c.token

	a := c.lead.call("GET", c.lead.api("/services/"+c.engines+"/instances"), nil).json(c.t)
	list, _ := a["instances"].([]any)

	if len(list) != 2 {
		c.t.Fatalf("instances: %v", a)
	}

	for _, raw := range list {
		inst, _ := raw.(map[string]any)
		id, _ := inst["instance_id"].(string)
		path := c.lead.api("/services/" + c.engines + "/instances/" + id + "/logs?tail=1000")

		c.lead.eventually(20*time.Second, line+" in the log of "+id, func() bool {
			url := c.gateways[0].Edge + "/v1/infers/" + c.engines + "/say?line=" + strings.ReplaceAll(line, " ", "+")
			c.gateways[0].token = c.token
			c.gateways[0].call("GET", url, nil)

			return bytes.Contains(c.lead.call("GET", path, nil).Body, []byte(line+"\n"))
		})
	}
}

// TestOrphanedEnginesEnd kills the only control processes for good: engines serve on, and end in time, with what
// they started.
func TestOrphanedEnginesEnd(t *testing.T) {
	t.Parallel()

	c := newChaos(t, 1)
	c.orphan = "3s"
	c.build()
	c.buildEngines(1)

	children := c.children(enginesOf(t, c.dir))
	if len(children) != 1 {
		t.Fatalf("engines %v", children)
	}

	c.standby.kill()
	c.lead.kill()

	began := time.Now()

	if err := c.echo(client, c.gateways[0].Edge, "still there?"); err != nil {
		t.Error(err)
	}

	c.gateways[0].eventually(20*time.Second, "end of the orphans", func() bool { return len(enginesOf(t, c.dir)) == 0 })

	if d := time.Since(began); d < 2*time.Second {
		t.Errorf("they ended after %v", d)
	}

	c.gateways[0].eventually(10*time.Second, "end of the engine", func() bool {
		return syscall.Kill(children[0], 0) != nil
	})
}

// children are the processes that these started.
func (c *chaos) children(of []int) (pids []int) {
	found, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		c.t.Fatal(err)
	}

	for _, path := range found {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue
		}

		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))

		parent, err := strconv.Atoi(fields[1])
		if err == nil && slices.Contains(of, parent) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				pids = append(pids, pid)
			}
		}
	}

	return pids
}
