package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/runtime/serve"
)

// listenLink opens the door for small calls, if there is to be one.
func (w *worker) listenLink(ctx context.Context) (net.Listener, error) {
	if w.opt.link == "" {
		return nil, nil //nolint:nilnil // no door is a valid choice
	}

	addr := w.opt.link
	if strings.HasPrefix(addr, "unix:") && strings.HasSuffix(addr, "/") {
		addr += strconv.Itoa(os.Getpid()) + ".sock"
	}

	ln, err := serve.Listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("start link: %w", err)
	}

	return ln, nil
}

// linkAddress is how a link is told to gateways: unix:PATH or tcp:HOST:PORT; "" without one.
func linkAddress(ln net.Listener) string {
	switch {
	case ln == nil:
		return ""
	case ln.Addr().Network() == "unix":
		return serve.Address(ln)
	default:
		return "tcp:" + serve.Address(ln)
	}
}
