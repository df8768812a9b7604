package system_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

// chaos is a cluster with clients that check every answer against its request.
type chaos struct {
	t             *testing.T
	rng           *rand.Rand
	config, dir   string
	lead, standby *sluice
	gateways      [2]*sluice
	plain, secure *balancer
	service       string
	orphan        string
	token         string // of the clients
	models        []string
	restarts      int

	telling  string // the service that streams
	engines  string // the one with custom engines
	versions []string
	etcd     *etcdMember
	killing  atomic.Bool // an engine is killed: what was in flight there may end
	messages atomic.Int64
	streams  atomic.Int64
	echoes   atomic.Int64

	sent, failed atomic.Int64
	first        atomic.Value
	done         atomic.Bool
	clients      sync.WaitGroup
}

// TestChaos runs for CHAOS_MINUTES (8 s if that is not set) from CHAOS_SEED (or a new one, printed), all acts or
// those of CHAOS_ACTS, by their names with commas in between.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}

	t.Parallel()

	lasts := 8 * time.Second
	if m, err := strconv.ParseFloat(os.Getenv("CHAOS_MINUTES"), 64); err == nil {
		lasts = time.Duration(m * float64(time.Minute))
	}

	seed, err := strconv.ParseUint(os.Getenv("CHAOS_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}

	t.Logf("CHAOS_SEED=%d", seed)

	c := newChaos(t, seed)
	c.build()
	c.buildEngines(2)

	c.rest()
	before := c.usages()

	t.Cleanup(func() { c.done.Store(true) })

	for i := range 4 {
		c.clients.Go(func() { c.client(uint64(i), i%2 == 1) })
	}

	c.clients.Go(func() { c.socketClient(100) })
	c.clients.Go(func() { c.streamClient(200) })
	c.clients.Go(func() { c.engineClient(300) })

	acts := []act{
		{"full upgrade", func() { c.upgrade(2, 0) }},
		{"expanding upgrade", func() { c.upgrade(1, 0) }},
		{"shrinking upgrade", func() { c.upgrade(0, 1) }},
		{"killed worker", c.killWorker},
		{"killed engine", c.killEngine},
		{"other engines", c.upgradeEngines},
		{"weights", c.weights},
		{"replaced gateway", func() { c.replaceGateway(0) }},
		{"restarted standby", c.restartStandby},
		{"killed leader", c.killLeader},
		{"replaced leader", c.stopLeader},
		{"etcd away", c.etcdAway},
		{"full disk", c.fullDisk},
	}
	if only := os.Getenv("CHAOS_ACTS"); only != "" {
		acts = slices.DeleteFunc(acts, func(a act) bool { return !slices.Contains(strings.Split(only, ","), a.name) })
	}

	counts := map[string]int{}

	// Every act in a random order, again and again.
	for end := time.Now().Add(lasts); time.Now().Before(end) && !t.Failed(); {
		for _, i := range c.rng.Perm(len(acts)) {
			if time.Now().After(end) {
				break
			}

			at := c.failed.Load()
			acts[i].run()
			c.settle()

			if n := c.failed.Load() - at; n > 0 {
				t.Errorf("%s: %d requests failed; the first: %v", acts[i].name, n, c.first.Load())
			}

			counts[acts[i].name]++
		}
	}

	c.done.Store(true)
	c.clients.Wait()
	t.Logf("%d requests (%d messages, %d streams, %d to custom engines), %d failed; %v",
		c.sent.Load(), c.messages.Load(), c.streams.Load(), c.echoes.Load(), c.failed.Load(), counts)

	if c.failed.Load() > 0 || c.sent.Load() == 0 || c.messages.Load() == 0 || c.streams.Load() == 0 || c.echoes.Load() == 0 {
		t.Errorf("%d of %d requests failed; the first: %v", c.failed.Load(), c.sent.Load(), c.first.Load())
	}

	c.nothingLost()
	c.nothingLeaked(before)
}

// act is something that happens to the cluster.
type act struct {
	name string
	run  func()
}

func newChaos(t *testing.T, seed uint64) *chaos {
	t.Helper()

	c := &chaos{t: t, rng: rand.New(rand.NewPCG(seed, 1)), dir: t.TempDir(), orphan: "1m"}
	killWorkersOf(t, c.dir)

	return c
}

func (c *chaos) build() {
	t := c.t
	c.etcd = startEtcd(t)
	endpoint := c.etcd.endpoint
	keyring := filepath.Join(c.dir, "keyring")

	if err := os.WriteFile(keyring, []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	c.config = fmt.Sprintf("keyring: %s\netcd: {endpoints: [%q]}\nlog: {level: info}\n"+
		"edge: {access_log: {off: true}, drain: {delay: 500ms, deadline: 10s, ws_spread: 100ms}}\nruntime: {drain_delay: 500ms, grace: 15s, orphan: %s}\n",
		keyring, endpoint, c.orphan)

	c.lead = startAs(t, "control", filepath.Join(c.dir, "lead"), c.config)
	c.lead.login()
	c.token = c.lead.token

	pkg := t.TempDir()
	if err := onnxgen.Identity(onnxgen.Float, onnxgen.Batch(4)).WriteFile(filepath.Join(pkg, "model.onnx")); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(pkg, "config.json"), []byte(`{"model_type":"ONNX","model_algorithm":"echo"}`), 0o600); err != nil {
		t.Fatal(err)
	}

	for v := range 3 {
		id, status := c.lead.model("echo", fmt.Sprintf("1.0.%d", v), pkg)
		if status != "published" {
			t.Fatalf("model is %s", status)
		}

		c.models = append(c.models, id)
	}

	c.service = c.lead.deploy("echo", c.models[0], 2, map[string]any{
		"additional_properties": map[string]any{"websocket_upgrade": true},
	})
	c.settle()

	engine := teller()
	t.Cleanup(engine.Close)

	c.telling = c.lead.external("events", map[string]any{"endpoints": []any{map[string]any{"url": engine.URL}}}, nil)

	c.standby = startAs(t, "control", filepath.Join(c.dir, "standby"), c.config)
	c.plain, c.secure = newBalancer(t), newBalancer(t)

	c.gateways[0] = startAs(t, "gateway", filepath.Join(c.dir, "gateway0"), c.config)
	c.gateways[1] = c.smallGateway()

	c.balance(c.gateways[:]...)

	for _, g := range c.gateways {
		g.eventually(20*time.Second, "answer", func() bool {
			return c.ask(&http.Client{Timeout: 10 * time.Second}, g.Edge, 1, 1) == nil
		})
	}
}

func (c *chaos) balance(list ...*sluice) {
	var plain, secure []*backend

	for _, g := range list {
		plain = append(plain, &backend{host(g.Edge), g.Ops})
		secure = append(secure, &backend{host(g.EdgeTLS), g.Ops})
	}

	c.plain.set(plain...)
	c.secure.set(secure...)
}

// client asks over one kept connection without a pause.
func (c *chaos) client(id uint64, secure bool) {
	cl, base, end := c.connect(secure)
	defer end()

	for n := uint64(0); !c.done.Load(); n++ {
		c.report(c.ask(cl, base, id, n))
	}
}

// ask sends numbers that no other request has, and wants them back.
func (c *chaos) ask(cl *http.Client, base string, id, n uint64) error {
	sent, body, err := question(id, n)
	if err != nil {
		return err
	}

	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, base+"/v1/infers/"+c.service+"/v2/models/echo/infer", bytes.NewReader(body))
	if err != nil {
		return err
	}

	req.Header.Set("X-Auth-Token", c.token)
	req.Header.Set("Content-Type", "application/json")

	resp, err := cl.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()

	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}

	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %s", resp.StatusCode, raw)
	}

	return checkEcho(raw, sent)
}

// settle waits until the service is as it should be.
func (c *chaos) settle() {
	c.lead.waitStatus(c.service, "running", 90*time.Second)

	if c.engines != "" {
		c.lead.waitStatus(c.engines, "running", 90*time.Second)
	}
}

func (c *chaos) put(entries ...any) {
	a := c.lead.call("PUT", c.lead.api("/services/"+c.service), map[string]any{"config": entries})
	if a.Status != http.StatusOK {
		c.t.Errorf("update: %d %s", a.Status, a.Body)
	}
}

func (c *chaos) upgrade(surge, unavailable int) {
	c.models = append(c.models[1:], c.models[0])
	c.put(entry(c.models[0], 100, 2, map[string]any{"max_surge": surge, "max_unavailable": unavailable}))
	c.pause(300 * time.Millisecond)
}

func (c *chaos) weights() {
	w := 1 + c.rng.IntN(99)
	c.put(entry(c.models[0], w, 2, nil), entry(c.models[1], 100-w, 1, nil))
	c.settle()
	c.put(entry(c.models[0], 100-w, 2, nil), entry(c.models[1], w, 1, nil))
	c.pause(300 * time.Millisecond)
}

// pause lets requests pass before the next look.
func (c *chaos) pause(d time.Duration) {
	at, deadline := c.sent.Load(), time.Now().Add(20*time.Second)
	timer := time.NewTimer(d)
	<-timer.C
	c.lead.eventually(time.Until(deadline), "requests", func() bool { return c.sent.Load() > at })
}

func (c *chaos) killWorker() {
	workers := workersOf(c.t, c.dir)
	if len(workers) < 2 {
		return
	}

	pid := workers[c.rng.IntN(len(workers))]
	c.killing.Store(true)
	syscall.Kill(pid, syscall.SIGKILL)
	c.lead.eventually(30*time.Second, "a new worker", func() bool {
		now := workersOf(c.t, c.dir)

		return len(now) >= 2 && !contains(now, pid) // others may have been draining
	})
	c.pause(500 * time.Millisecond)
	c.killing.Store(false)
}

// replaceGateway drains one of the two and puts another in its place.
func (c *chaos) replaceGateway(i int) {
	old := c.gateways[i]
	c.restarts++
	c.gateways[i] = startAs(c.t, "gateway", filepath.Join(c.dir, "gateway-"+strconv.Itoa(c.restarts)), c.config)
	c.balance(c.gateways[0], c.gateways[1], old)

	if code := old.stop(30 * time.Second); code != 0 {
		c.t.Errorf("a gateway ended with %d\n%s", code, old.log.tail())
	}

	c.balance(c.gateways[:]...)
}

func (c *chaos) restartStandby() {
	if code := c.standby.stop(30 * time.Second); code != 0 {
		c.t.Errorf("the standby ended with %d\n%s", code, c.standby.log.tail())
	}

	c.standby = startAs(c.t, "control", c.standby.data, c.config)
}

func (c *chaos) nothingLost() {
	a := c.lead.call("GET", c.lead.api("/models"), nil).json(c.t)
	if list, _ := a["models"].([]any); len(list) != len(c.models)+len(c.versions)+1 {
		c.t.Errorf("%d models, want %d", len(list), len(c.models)+len(c.versions)+1)
	}

	a = c.lead.call("GET", c.lead.api("/services"), nil).json(c.t)
	if list, _ := a["services"].([]any); len(list) != 3 {
		c.t.Errorf("%d services, want 3", len(list))
	}
}

type usage struct{ files, goroutines int }

var total = regexp.MustCompile(`goroutine profile: total (\d+)`)

func (c *chaos) usage(s *sluice) usage {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}

	m := total.FindSubmatch(s.call("GET", s.Ops+"/debug/pprof/goroutine?debug=1", nil).Body)
	if m == nil {
		c.t.Fatal("no goroutine profile")
	}

	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		c.t.Fatal(err)
	}

	return usage{len(files), n}
}

// usages are those of every process that lives long, by its role.
func (c *chaos) usages() map[string]usage {
	c.lead.token = c.token

	return map[string]usage{
		"first gateway": c.usage(c.gateways[0]), "second gateway": c.usage(c.gateways[1]),
		"leader": c.usage(c.lead), "standby": c.usage(c.standby),
	}
}

// rest brings the services back to one model with two instances.
func (c *chaos) rest() {
	c.put(entry(c.models[0], 100, 2, nil))
	c.settle()
	c.lead.eventually(60*time.Second, "two workers", func() bool { return len(workersOf(c.t, c.dir)) == 2 })
	c.lead.eventually(60*time.Second, "two engines", func() bool { return len(enginesOf(c.t, c.dir)) == 2 })
}

// nothingLeaked compares every process with those that had its role in the beginning, at rest.
func (c *chaos) nothingLeaked(before map[string]usage) {
	c.rest()
	client.CloseIdleConnections()

	var now map[string]usage

	defer func() { c.t.Logf("files and goroutines: %v, before %v", now, before) }()

	c.lead.eventually(60*time.Second, "return to rest", func() bool {
		now = c.usages()

		// Kept connections come and go by a few.
		for role, u := range now {
			if u.files > before[role].files+12 || u.goroutines > before[role].goroutines+25 {
				return false
			}
		}

		return true
	})

	for _, s := range []*sluice{c.gateways[0], c.gateways[1], c.standby, c.lead} {
		if code := s.stop(40 * time.Second); code != 0 {
			c.t.Errorf("exit code %d\n%s", code, s.log.tail())
		}
	}

	if left := append(workersOf(c.t, c.dir), enginesOf(c.t, c.dir)...); len(left) > 0 {
		c.t.Errorf("processes %v outlive the last control process", left)
	}
}
