package system_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// machine is a network of its own on this one, with a cable to ours.
type machine struct {
	t           *testing.T
	name, cable string
	here, there string // addresses
}

// otherMachine makes one, or skips the test where that is not possible.
func otherMachine(t *testing.T) *machine {
	t.Helper()

	id := strconv.Itoa(os.Getpid() % 10000)
	m := &machine{t: t, name: "sluice-test-" + id, cable: "slt" + id}
	net := fmt.Sprintf("198.18.%d.", os.Getpid()%250)
	m.here, m.there = net+"1", net+"2"

	for i, args := range [][]string{
		{"netns", "add", m.name},
		{"link", "add", m.cable, "type", "veth", "peer", "name", m.cable + "p", "netns", m.name},
		{"addr", "add", m.here + "/30", "dev", m.cable},
		{"link", "set", m.cable, "up"},
		{"-n", m.name, "addr", "add", m.there + "/30", "dev", m.cable + "p"},
		{"-n", m.name, "link", "set", m.cable + "p", "up"},
		{"-n", m.name, "link", "set", "lo", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			if i == 0 {
				t.Skipf("no network namespaces here: %v %s", err, out)
			}

			m.remove()
			t.Skipf("no network between namespaces here: ip %v: %v %s", args, err, out)
		}

		if i == 0 {
			t.Cleanup(m.remove)
		}
	}

	return m
}

func (m *machine) remove() {
	_ = exec.Command("ip", "link", "del", m.cable).Run() // goes with the namespace as well
	_ = exec.Command("ip", "netns", "del", m.name).Run()
}

// plug puts the cable in or pulls it out.
func (m *machine) plug(state string) {
	m.t.Helper()

	if out, err := exec.Command("ip", "link", "set", m.cable, state).CombinedOutput(); err != nil {
		m.t.Fatalf("cable %s: %v %s", state, err, out)
	}
}

// TestGatewayAndWorkersOnTwoMachines runs control with its workers here and a gateway on a machine of its own.
// They talk over TCP with certificates from the key ring; others are refused.
func TestGatewayAndWorkersOnTwoMachines(t *testing.T) {
	t.Parallel()

	m := otherMachine(t)
	dir := t.TempDir()
	member := &etcdMember{t: t, dir: filepath.Join(dir, "etcd"), endpoint: "http://" + m.here + ":0"}
	member.start()
	t.Cleanup(member.stop)

	config := fmt.Sprintf("log: {level: debug}\nkeyring: %s\netcd: {endpoints: [%q]}\nedge: {drain: {delay: 200ms, deadline: 5s}}\n",
		keyRing(t, dir), "http://"+member.running.Clients[0].Addr().String())
	killWorkersOf(t, dir)

	control := startAs(t, "control", filepath.Join(dir, "control"),
		config+"runtime: {drain_delay: 200ms, grace: 10s, listen: "+m.here+"}\n")
	control.login()

	model, status := control.model("digits", "1.0.0", digitsDir(t))
	if status != "published" {
		t.Fatalf("model is %s", status)
	}

	service := control.deploy("digits", model, 1, nil)
	control.waitStatus(service, "running", 30*time.Second)

	g := startIn(t, []string{"ip", "netns", "exec", m.name}, "gateway", filepath.Join(dir, "gateway"), config,
		"--edge-http", m.there+":0")
	g.token = control.token

	g.eventually(10*time.Second, "a small prediction", func() bool {
		label, err := g.predictDigit(g.Edge, service, 7)

		return err == nil && label == "7"
	})

	// A large body takes HTTP/1.1 with the same certificates.
	body, ct := multipartOf(t, "images", sample(t, 7))
	large := bytes.Replace(body, []byte("\r\n\r\n"), []byte("\r\nX-Padding: "+strings.Repeat("p", 3000)+"\r\n\r\n"), 1)
	large = append([]byte(strings.Repeat("preamble\r\n", 10_000)), large...)

	if a, err := g.try("POST", g.Edge+"/v1/infers/"+service, large, "Content-Type", ct); err != nil || a.Status != 200 {
		t.Errorf("a large body: %v %d %s", err, a.Status, a.Body)
	}

	for _, address := range workerAddresses(t, filepath.Join(dir, "control", "logs")) {
		if !strings.HasPrefix(address, m.here+":") {
			t.Errorf("the worker listens on %s", address)
		}

		strangersAreRefused(t, address)
	}

	m.cableIsPulled(g, service)

	// A worker that is killed is replaced by one with another certificate.
	for _, pid := range workersOf(t, dir) {
		syscall.Kill(pid, syscall.SIGKILL)
	}

	g.eventually(20*time.Second, "a prediction by the next worker", func() bool {
		label, err := g.predictDigit(g.Edge, service, 7)

		return err == nil && label == "7"
	})

	if code := g.stop(20 * time.Second); code != 0 {
		t.Errorf("gateway: exit code %d", code)
	}
}

// keyRing makes the key ring that processes of a system share.
func keyRing(t *testing.T, dir string) string {
	t.Helper()

	file := filepath.Join(dir, "keyring")
	if err := os.WriteFile(file, []byte(strings.Repeat("a1", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	return file
}

// workerAddresses finds where the workers listen, HTTP and link.
func workerAddresses(t *testing.T, dir string) []string {
	t.Helper()

	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}

	var found []string

	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // a directory
		}

		for _, m := range regexp.MustCompile(`"http":"([^"]+)","link":"tls:([^"]+)"`).FindAllStringSubmatch(string(data), -1) {
			found = append(found, m[1], m[2])
		}
	}

	if len(found) == 0 {
		t.Fatalf("no worker tells where it listens: %v", files)
	}

	return found
}

// strangersAreRefused talks to a worker without a certificate.
func strangersAreRefused(t *testing.T, address string) {
	t.Helper()

	for name, dial := range map[string]func() (net.Conn, error){
		"in the clear": func() (net.Conn, error) { return net.DialTimeout("tcp", address, time.Second) },
		"without a certificate": func() (net.Conn, error) {
			return tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		},
	} {
		for _, hello := range []string{"SLNK\x01\x01\x00\x00", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"} {
			conn, err := dial()
			if err != nil {
				continue // refused already
			}

			conn.SetDeadline(time.Now().Add(10 * time.Second))
			io.WriteString(conn, hello)

			got, _ := io.ReadAll(io.LimitReader(conn, 64))
			conn.Close()

			if strings.Contains(string(got), "SLNK") || strings.Contains(string(got), "200") {
				t.Errorf("%s %s: the worker says %q", address, name, got)
			}
		}
	}
}

// cableIsPulled takes the network between gateway and worker away under load: each request gets one
// answer in time, and all is well afterwards. The clients are on the gateway's machine.
func (m *machine) cableIsPulled(g *sluice, service string) {
	t := m.t
	t.Helper()

	body, ct := multipartOf(t, "images", sample(t, 7))
	file := filepath.Join(t.TempDir(), "body")

	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}

	var (
		clients      sync.WaitGroup
		served, sent atomic.Int64
		done         atomic.Bool
	)

	for range 4 {
		clients.Go(func() {
			for !done.Load() {
				sent.Add(1)

				began := time.Now()
				out, err := exec.Command("ip", "netns", "exec", m.name, "curl", "-s", "-m", "15", "-o", "/dev/null", "-w", "%{http_code}",
					"-H", "X-Auth-Token: "+g.token, "-H", "Content-Type: "+ct, "--data-binary", "@"+file, g.Edge+"/v1/infers/"+service).Output()

				status, _ := strconv.Atoi(string(out))

				switch {
				case status == http.StatusOK:
					served.Add(1)
				case err != nil || status < 500:
					t.Errorf("after %v: status %d, %v", time.Since(began), status, err)

					return
				}
			}
		})
	}

	<-time.After(500 * time.Millisecond)
	m.plug("down")

	before := served.Load()

	<-time.After(4 * time.Second)
	m.plug("up")
	// The route of the link's address came back with it.
	g.eventually(15*time.Second, "predictions after the cable is back", func() bool { return served.Load() > before+20 })
	done.Store(true)
	clients.Wait()
	t.Logf("%d requests, %d served, %d before the cable was pulled", sent.Load(), served.Load(), before)
}
