package edge

import (
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/gateway/tunnel"
	"github.com/sluice-gateway/sluice/internal/config"
)

// WebSocket bounds WebSockets. A limit of 0 is none.
type WebSocket struct {
	// Connections counts both doors.
	Connections           int `yaml:"connections"`
	ConnectionsPerSource  int `yaml:"connections_per_source"`
	ConnectionsPerService int `yaml:"connections_per_service"`
	// Origins are those of pages that may connect beside the gateway's own: "https://app.example.com",
	// "https://*.example.com", or "*".
	Origins []string `yaml:"origins"`
	// MaxMessage bounds a message; a service's limit on bodies may lower it.
	MaxMessage config.ByteSize `yaml:"max_message"`
	// A sender of more than FramesPerSecond or MessagesPerSecond is slowed down; one of more than
	// ControlsPerSecond (pings, pongs) is cut off. Bursts are allowed.
	FramesPerSecond   int `yaml:"frames_per_second"`
	MessagesPerSecond int `yaml:"messages_per_second"`
	ControlsPerSecond int `yaml:"controls_per_second"`
	// Ping is how long a client may be silent until it is pinged, Pong until it counts as gone.
	Ping config.Duration `yaml:"ping"`
	Pong config.Duration `yaml:"pong"`
	// Idle ends a WebSocket without messages, Life any.
	Idle config.Duration `yaml:"idle"`
	Life config.Duration `yaml:"life"`
	// Write is how long either end may take no bytes.
	Write config.Duration `yaml:"write"`
	// CloseWait is how long an end may take to answer a close frame.
	CloseWait config.Duration `yaml:"close_wait"`
}

func defaultWebSocket() WebSocket {
	c := tunnel.Config{}.Defaults()

	return WebSocket{
		Connections: 50_000, ConnectionsPerSource: 16_384,
		MaxMessage: config.ByteSize(c.MaxMessage), FramesPerSecond: c.FramesPerSecond, ControlsPerSecond: c.ControlsPerSecond,
		Ping: config.Duration(c.Ping), Pong: config.Duration(c.Pong), Idle: config.Duration(c.Idle), Life: config.Duration(c.Life),
		Write: config.Duration(c.Write), CloseWait: config.Duration(c.CloseWait),
	}
}

// tunnel is the configuration of the relay, in which 0 is the default and a negative number no bound.
func (w *WebSocket) tunnel() tunnel.Config {
	return tunnel.Config{
		MaxMessage: unbound(int64(w.MaxMessage)), FramesPerSecond: unbound(w.FramesPerSecond),
		MessagesPerSecond: unbound(w.MessagesPerSecond), ControlsPerSecond: unbound(w.ControlsPerSecond),
		Ping: unbound(w.Ping.D()), Pong: unbound(w.Pong.D()), Idle: unbound(w.Idle.D()), Life: unbound(w.Life.D()),
		Write: w.Write.D(), CloseWait: w.CloseWait.D(),
	}
}

func unbound[T int | int64 | time.Duration](v T) T {
	if v == 0 {
		return -1
	}

	return v
}

func (w *WebSocket) validate(add func(ok bool, path, format string, args ...any)) {
	for _, f := range []struct {
		path string
		n    int64
	}{
		{"connections", int64(w.Connections)},
		{"connections_per_source", int64(w.ConnectionsPerSource)},
		{"connections_per_service", int64(w.ConnectionsPerService)},
		{"frames_per_second", int64(w.FramesPerSecond)},
		{"messages_per_second", int64(w.MessagesPerSecond)},
		{"controls_per_second", int64(w.ControlsPerSecond)},
		{"max_message", int64(w.MaxMessage)},
		{"ping", int64(w.Ping)},
		{"pong", int64(w.Pong)},
		{"idle", int64(w.Idle)},
		{"life", int64(w.Life)},
	} {
		add(f.n >= 0, "websocket."+f.path, "must not be negative")
	}

	add(w.Write > 0, "websocket.write", "must be positive")
	add(w.CloseWait > 0, "websocket.close_wait", "must be positive")
	add(w.Ping == 0 || w.Pong == 0 || w.Pong > w.Ping, "websocket.pong", "must be longer than ping")

	for _, o := range w.Origins {
		scheme, host, ok := strings.Cut(o, "://")
		add(o == "*" || ok && scheme != "" && host != "" && !strings.ContainsAny(host, "/?#"), "websocket.origins",
			"%q is neither an origin such as https://app.example.com nor *", o)
	}
}
