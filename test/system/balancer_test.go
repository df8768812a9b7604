package system_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// balancer passes TCP connections on to gateways, as a plain one would: it knows their
// readiness and nothing of HTTP.
type balancer struct {
	ln net.Listener

	mu   sync.Mutex
	next int
	to   []*backend
}

type backend struct{ addr, ops string }

func newBalancer(t *testing.T) *balancer {
	t.Helper()

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	b := &balancer{ln: ln}

	var wg sync.WaitGroup

	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}

			wg.Go(func() { b.pass(c) })
		}
	})

	return b
}

func (b *balancer) set(list ...*backend) {
	b.mu.Lock()
	defer b.mu.Unlock()

	b.to = list
}

// pick is one gateway that takes connections and says that it is ready.
func (b *balancer) pick() net.Conn {
	b.mu.Lock()
	list, from := b.to, b.next
	b.next++
	b.mu.Unlock()

	for i := range list {
		to := list[(from+i)%len(list)]

		resp, err := http.Get(to.ops + "/health")
		if err != nil {
			continue
		}

		resp.Body.Close()

		if resp.StatusCode != http.StatusOK {
			continue
		}

		if c, err := net.DialTimeout("tcp", to.addr, time.Second); err == nil {
			return c
		}
	}

	return nil
}

func (b *balancer) pass(client net.Conn) {
	defer client.Close()

	server := b.pick()
	if server == nil {
		return
	}
	defer server.Close()

	done := make(chan struct{})

	go func() {
		defer close(done)

		io.Copy(server, client)
		server.(*net.TCPConn).CloseWrite()
	}()

	io.Copy(client, server)
	client.Close()
	<-done
}

func host(url string) string { return url[strings.Index(url, "//")+2:] }
