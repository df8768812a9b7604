package system_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcd is a real member with listeners, in the test's process.
func etcd(t *testing.T) (endpoint string, stop func()) {
	t.Helper()

	m := startEtcd(t)

	return m.endpoint, m.stop
}

// etcdMember can be stopped, and started again where it was.
type etcdMember struct {
	t        *testing.T
	dir      string
	endpoint string
	running  *embed.Etcd
}

func startEtcd(t *testing.T) *etcdMember {
	t.Helper()

	m := &etcdMember{t: t, dir: filepath.Join(t.TempDir(), "etcd"), endpoint: "http://127.0.0.1:0"}
	m.start()
	m.endpoint = "http://" + m.running.Clients[0].Addr().String()
	t.Cleanup(m.stop)

	return m
}

func (m *etcdMember) start() {
	m.t.Helper()

	cfg := embed.NewConfig()
	cfg.Dir = m.dir
	cfg.LogLevel = "fatal"
	cfg.UnsafeNoFsync = true

	at := func(s string) url.URL {
		u, err := url.Parse(s)
		if err != nil {
			m.t.Fatal(err)
		}

		return *u
	}

	cfg.ListenClientUrls = []url.URL{at(m.endpoint)}
	cfg.ListenPeerUrls = []url.URL{at("http://127.0.0.1:0")}

	e, err := embed.StartEtcd(cfg)
	if err != nil {
		m.t.Fatal(err)
	}

	m.running = e

	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		m.t.Fatal("etcd does not start")
	}
}

func (m *etcdMember) stop() {
	if m.running != nil {
		m.running.Close()
		m.running = nil
	}
}

// TestCluster runs two gateways and two control processes on an external etcd; each is lost in turn.
func TestCluster(t *testing.T) {
	t.Parallel()

	endpoint, stopEtcd := etcd(t)
	dir := t.TempDir()
	keyring := filepath.Join(dir, "keyring")

	// The key ring is made by an operator, once, for all.
	seed := start(t, filepath.Join(dir, "seed"), "")
	if code := seed.stop(20 * time.Second); code != 0 {
		t.Fatalf("exit code %d", code)
	}

	data, err := os.ReadFile(filepath.Join(dir, "seed", "keyring"))
	if err == nil {
		err = os.WriteFile(keyring, data, 0o600)
	}

	if err != nil {
		t.Fatal(err)
	}

	config := fmt.Sprintf("log: {level: debug}\nkeyring: %s\netcd: {endpoints: [%q]}\nedge: {drain: {delay: 200ms, deadline: 5s}}\n"+
		"runtime: {drain_delay: 200ms, grace: 10s, orphan: 20s}\n", keyring, endpoint)
	killWorkersOf(t, dir)

	first := startAs(t, "control", filepath.Join(dir, "control1"), config)
	first.login()

	model, status := first.model("digits", "1.0.0", digitsDir(t))
	if status != "published" {
		t.Fatalf("model is %s", status)
	}

	service := first.deploy("digits", model, 1, nil)
	first.waitStatus(service, "running", 30*time.Second)

	g1 := startAs(t, "gateway", filepath.Join(dir, "gateway1"), config)
	g2 := startAs(t, "gateway", filepath.Join(dir, "gateway2"), config)
	g1.token, g2.token = first.token, first.token

	seven := func(g *sluice) bool {
		label, err := g.predictDigit(g.Edge, service, 7)

		return err == nil && label == "7"
	}

	for i, g := range []*sluice{g1, g2} {
		g.eventually(10*time.Second, "prediction through gateway "+strconv.Itoa(i+1), func() bool { return seven(g) })
	}

	// A gateway drains and goes; the other one serves on.
	if code := g1.stop(20 * time.Second); code != 0 {
		t.Errorf("gateway 1: exit code %d", code)
	}

	if !seven(g2) {
		t.Error("gateway 2 does not serve alone")
	}

	// The control process dies, with its workers; the second one takes over.
	second := startAs(t, "control", filepath.Join(dir, "control2"), config)
	syscall.Kill(first.cmd.Process.Pid, syscall.SIGKILL)
	<-first.exited
	g2.eventually(30*time.Second, "prediction after the takeover", func() bool { return seven(g2) })

	// Without etcd the gateway serves its last plan, also after a restart of its own.
	stopEtcd()

	for range 20 {
		if !seven(g2) {
			t.Fatal("gateway 2 does not serve without etcd")
		}
	}

	g2.kill()

	again := startAs(t, "gateway", g2.data, config)
	again.token = first.token

	again.eventually(10*time.Second, "prediction by a restarted gateway without etcd", func() bool { return seven(again) })
	second.kill()
}
