package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// directArgs are the flags that guard a door past the gateway; prefix is "--" and what they begin with.
func (p *process) directArgs(prefix string) []string {
	var args []string

	add := func(name, value string) {
		if value != "" {
			args = append(args, prefix+name, value)
		}
	}

	d, files := p.task.Direct, &p.owner.cfg.Direct.TLS
	add("allow", strings.Join(d.Allow, ","))
	add("key-sha256", d.KeyHash)
	add("cert", files.Cert)
	add("cert-key", files.Key)
	add("client-ca", files.ClientCA)

	return args
}

// engineURL is where a supervisor reaches its engine.
func (p *process) engineURL(port int) string {
	return p.engineScheme() + "://127.0.0.1:" + strconv.Itoa(port)
}

func (p *process) engineScheme() string {
	if proto := p.task.Model.Config.Protocol; proto == "https" || proto == "wss" {
		return "https"
	}

	return "http"
}

// openRelay opens the door past the gateway of a custom engine; the supervisor serves it.
func (p *process) openRelay(ctx context.Context) (err error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(p.owner.cfg.Direct.Host, "0"))
	if err != nil {
		return fmt.Errorf("open the direct door: %w", err)
	}

	defer func() { err = errors.Join(err, ln.Close()) }() // the file is a copy

	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return errors.New("open the direct door: no TCP")
	}

	var f *os.File
	if f, err = tcp.File(); err != nil {
		return fmt.Errorf("open the direct door: %w", err)
	}

	p.relay, p.relayAt = f, ln.Addr().String()

	return nil
}

// advertise completes the addresses that callers past the gateway are told.
func (p *process) advertise(st *Status) {
	if p.task.Direct == nil {
		return
	}

	st.DirectScheme = "http"
	if p.owner.cfg.Direct.TLS.Cert != "" {
		st.DirectScheme = "https"
	}

	for _, at := range []*string{&st.Direct, &st.DirectGRPC} {
		if _, port, err := net.SplitHostPort(*at); err == nil {
			*at = net.JoinHostPort(p.owner.cfg.Direct.Advertise, port)
		}
	}
}
