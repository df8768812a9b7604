package edge_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
)

// maxIdleBytes is what an idle keep-alive connection may keep resident in the low-memory profile.
const maxIdleBytes = 8 << 10

// TestIdleConnectionsAreSmall measures the resident memory of the process over 10,000 connections that
// were served once and are idle now. It opens 20,000 descriptors in two processes, so that it runs when asked:
//
//	SLUICE_IDLE_CONNECTIONS=10000 go test -run IdleConnectionsAreSmall -v ./gateway/edge
func TestIdleConnectionsAreSmall(t *testing.T) { //nolint:paralleltest // measures the whole process
	if addr := os.Getenv("SLUICE_IDLE_CLIENT"); addr != "" {
		idleClient(t, addr)

		return
	}

	count, err := strconv.Atoi(os.Getenv("SLUICE_IDLE_CONNECTIONS"))
	if err != nil {
		t.Skip("SLUICE_IDLE_CONNECTIONS is not set to a number of connections")
	}

	for _, low := range []bool{false, true} {
		perConn := measureIdle(t, low, count)
		t.Logf("low memory %v: %d connections, %d bytes resident each", low, count, perConn)

		if low && perConn > maxIdleBytes {
			t.Errorf("%d bytes are more than %d", perConn, maxIdleBytes)
		}
	}
}

func measureIdle(t *testing.T, low bool, count int) int {
	t.Helper()

	cfg := testConfig()
	cfg.LowMemory = low
	cfg.Log.Off = true
	cfg.Timeouts.ParkAfter = ms(200)
	cfg.Timeouts.Idle = ms(600_000)

	r := start(t, cfg, handlerFunc(func(c *gateway.Call) {
		b, err := c.Body.Bytes(1 << 20)
		if err != nil {
			gateway.WriteFault(c, err)

			return
		}

		c.Out.Set(200, b)
	}))

	before := resident(t)

	// The client is another process: its half of the connections must not be counted.
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=TestIdleConnectionsAreSmall")
	cmd.Env = append(os.Environ(), "SLUICE_IDLE_CLIENT="+r.HTTPAddr(), fmt.Sprintf("SLUICE_IDLE_COUNT=%d", count))

	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}

	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	defer func() {
		_ = in.Close()
		_ = cmd.Wait()
	}()

	if line := make([]byte, 5); true {
		if _, err := io.ReadFull(out, line); err != nil || string(line) != "ready" {
			t.Fatalf("client: %q, %v", line, err)
		}
	}

	if n := r.Connections(); n != count {
		t.Fatalf("%d connections", n)
	}

	<-time.After(time.Second)

	return (resident(t) - before) / count
}

// idleClient opens connections, has one request served on each, and holds them until told.
func idleClient(t *testing.T, addr string) {
	t.Helper()

	count, err := strconv.Atoi(os.Getenv("SLUICE_IDLE_COUNT"))
	if err != nil {
		t.Fatal(err)
	}

	conns := make([]net.Conn, 0, count)

	for range count {
		c := dialAddr(t, addr)
		conns = append(conns, c)

		if _, err := io.WriteString(c, "POST /t HTTP/1.1\r\n"+hostLine+"Content-Length: 1024\r\n\r\n"+strings.Repeat("x", 1024)); err != nil {
			t.Fatal(err)
		}

		var b [2048]byte
		if n, err := c.Read(b[:]); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}

	_, _ = os.Stdout.WriteString("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)

	for _, c := range conns {
		_ = c.Close()
	}
}

// resident is the resident set of this process after a garbage collection.
func resident(t *testing.T) int {
	t.Helper()

	for range 3 {
		runtime.GC()
		debug.FreeOSMemory()
	}

	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("no /proc/self/statm here")
	}

	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}

	return pages * os.Getpagesize()
}
