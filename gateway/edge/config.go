package edge

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/gateway/edge/wire"
	"github.com/sluice-gateway/sluice/internal/config"
)

// Config is the static configuration of the doors.
type Config struct {
	// HTTP and HTTPS are host:port to listen on; port 0 takes any. Empty: no such door.
	HTTP  string `yaml:"http"`
	HTTPS string `yaml:"https"`
	// RedirectToHTTPS answers everything but health checks on the HTTP door with 308.
	RedirectToHTTPS bool `yaml:"redirect_to_https"`
	// RedirectPort is the port that clients know the HTTPS door by; 0 is the door's own.
	RedirectPort int `yaml:"redirect_port"`
	// HSTS is the max-age that HTTPS answers announce; 0 is off.
	HSTS config.Duration `yaml:"hsts"`
	// HealthPath answers 200 or 503 to load balancers; empty is off.
	HealthPath string `yaml:"health_path"`
	// Prefixes are the paths that go into the corridor. Each ends with a slash.
	Prefixes []string `yaml:"prefixes"`
	// TrustedProxies are the networks whose X-Forwarded-For is believed.
	TrustedProxies []string `yaml:"trusted_proxies"`
	// LowMemory gives the buffers of a connection back after every answer instead of after
	// ParkAfter of silence. It costs about 1 µs a request.
	LowMemory bool `yaml:"low_memory"`

	Limits    Limits    `yaml:"limits"`
	WebSocket WebSocket `yaml:"websocket"`
	Timeouts  Timeouts  `yaml:"timeouts"`
	Drain     Drain     `yaml:"drain"`
	Log       AccessLog `yaml:"access_log"`
}

// Limits bound what a client may send and how many may come.
type Limits struct {
	RequestLine config.ByteSize `yaml:"request_line"`
	HeaderField config.ByteSize `yaml:"header_field"`
	Headers     config.ByteSize `yaml:"headers"`
	HeaderCount int             `yaml:"header_count"`
	// Body is the limit of services that set none; BodyMost is the highest that one may set.
	Body     config.ByteSize `yaml:"body"`
	BodyMost config.ByteSize `yaml:"body_most"`
	// Connections counts both doors; PerSource an IPv4 address or an IPv6 /64. 0: no limit.
	Connections           int `yaml:"connections"`
	ConnectionsPerSource  int `yaml:"connections_per_source"`
	RequestsPerConnection int `yaml:"requests_per_connection"`
}

// Timeouts bound how long a client may take. All are positive except ConnectionAge (0: no limit).
type Timeouts struct {
	// Header is for a whole head, from its first byte (on a new connection: from the accept).
	Header config.Duration `yaml:"header"`
	// Body is how long a body may take beside what MinBodyRate grants for the bytes that came.
	Body        config.Duration `yaml:"body"`
	MinBodyRate config.ByteSize `yaml:"min_body_rate"`
	// Idle is for the time between two requests.
	Idle config.Duration `yaml:"idle"`
	// Write is how long one write may take beside what MinWriteRate grants for its bytes; in a
	// stream every chunk is one write.
	Write        config.Duration `yaml:"write"`
	MinWriteRate config.ByteSize `yaml:"min_write_rate"`
	Handshake    config.Duration `yaml:"tls_handshake"`
	// ConnectionAge ends a connection after the answer that passes it.
	ConnectionAge config.Duration `yaml:"connection_age"`
	// Linger is how long an early error waits for the client to stop sending.
	Linger config.Duration `yaml:"linger"`
	// ParkAfter is how long an idle connection keeps its buffers.
	ParkAfter config.Duration `yaml:"park_after"`
}

// Drain says how the doors close.
type Drain struct {
	// Delay is how long the doors stay open after readiness turned 503, answering with
	// "Connection: close". It should be longer than clients keep idle connections.
	Delay config.Duration `yaml:"delay"`
	// Deadline is how long requests in flight may take after that.
	Deadline config.Duration `yaml:"deadline"`
	// WebSocketSpread: WebSockets are told good-bye at times spread over this, from when the doors close;
	// never over more than Deadline.
	WebSocketSpread config.Duration `yaml:"ws_spread"`
}

// AccessLog controls the log of requests.
type AccessLog struct {
	Off bool `yaml:"off"`
	// Sample logs one of that many served requests; everything else is always logged.
	Sample int `yaml:"sample"`
	// Queue is how many lines may wait to be written before lines are dropped and counted.
	Queue int `yaml:"queue"`
}

// Defaults returns the configuration that users get without writing one; it listens nowhere.
func Defaults() Config {
	return Config{
		HSTS:       config.Duration(180 * 24 * time.Hour),
		HealthPath: "/health",
		Prefixes:   []string{"/v1/infers/"},
		Limits: Limits{
			RequestLine: 32 << 10, HeaderField: 32 << 10, Headers: 128 << 10, HeaderCount: 100,
			Body: 12 << 20, BodyMost: 1 << 30, Connections: 65536, ConnectionsPerSource: 16384, RequestsPerConnection: 100_000,
		},
		Timeouts: Timeouts{
			Header: config.Duration(10 * time.Second),
			Body:   config.Duration(15 * time.Second), MinBodyRate: 16 << 10,
			Idle:  config.Duration(75 * time.Second),
			Write: config.Duration(30 * time.Second), MinWriteRate: 16 << 10,
			Handshake:     config.Duration(10 * time.Second),
			ConnectionAge: config.Duration(time.Hour),
			Linger:        config.Duration(2 * time.Second),
			ParkAfter:     config.Duration(time.Second),
		},
		WebSocket: defaultWebSocket(),
		Drain: Drain{
			Delay: config.Duration(5 * time.Second), Deadline: config.Duration(40 * time.Second),
			WebSocketSpread: config.Duration(10 * time.Second),
		},
		Log: AccessLog{Sample: 1, Queue: 8192},
	}
}

// Validate reports every mistake at once, with paths relative to the edge.
func (c *Config) Validate() error {
	var errs []error

	add := func(ok bool, path, format string, args ...any) {
		if !ok {
			errs = append(errs, config.At(path, format, args...))
		}
	}

	add(c.HTTP != "" || c.HTTPS != "", "http", "neither http nor https has an address to listen on")
	add(!c.RedirectToHTTPS || c.HTTPS != "", "redirect_to_https", "needs an https address")
	add(c.RedirectPort >= 0 && c.RedirectPort <= 65535, "redirect_port", "must be a port")
	add(c.HealthPath == "" || strings.HasPrefix(c.HealthPath, "/"), "health_path", "must start with a slash")
	add(len(c.Prefixes) > 0, "prefixes", "must not be empty")

	for _, p := range c.Prefixes {
		add(strings.HasPrefix(p, "/") && strings.HasSuffix(p, "/"), "prefixes", "%q must start and end with a slash", p)
	}

	if _, err := parsePrefixes(c.TrustedProxies); err != nil {
		errs = append(errs, config.At("trusted_proxies", "%v", err))
	}

	c.Limits.validate(add)
	c.WebSocket.validate(add)
	add(c.Drain.WebSocketSpread >= 0, "drain.ws_spread", "must not be negative")
	c.Timeouts.validate(add)

	add(c.Log.Sample >= 1, "access_log.sample", "must be at least 1")
	add(c.Log.Queue >= 1 && c.Log.Queue <= 1<<20, "access_log.queue", "must be between 1 and 1048576")

	return errors.Join(errs...)
}

func (l *Limits) validate(add func(ok bool, path, format string, args ...any)) {
	add(l.RequestLine >= 256 && l.RequestLine <= 1<<20, "limits.request_line", "must be between 256 B and 1 MiB")
	add(l.HeaderField >= 256 && l.HeaderField <= 1<<20, "limits.header_field", "must be between 256 B and 1 MiB")
	add(l.Headers >= l.RequestLine && l.Headers >= l.HeaderField && l.Headers <= 4<<20,
		"limits.headers", "must hold the request line and a header field, and be at most 4 MiB")
	add(l.HeaderCount >= 8 && l.HeaderCount <= wire.MaxFields, "limits.header_count", "must be between 8 and %d", wire.MaxFields)
	add(l.Body >= 1, "limits.body", "must be positive")
	add(l.BodyMost >= l.Body, "limits.body_most", "must not be below limits.body")
	add(l.Connections >= 0, "limits.connections", "must not be negative")
	add(l.ConnectionsPerSource >= 0, "limits.connections_per_source", "must not be negative")
	add(l.RequestsPerConnection >= 0, "limits.requests_per_connection", "must not be negative")
}

func (t *Timeouts) validate(add func(ok bool, path, format string, args ...any)) {
	for _, d := range []struct {
		path string
		v    config.Duration
	}{
		{"header", t.Header},
		{"body", t.Body},
		{"idle", t.Idle},
		{"write", t.Write},
		{"tls_handshake", t.Handshake},
		{"linger", t.Linger},
		{"park_after", t.ParkAfter},
	} {
		add(d.v > 0, "timeouts."+d.path, "must be positive")
	}

	add(t.MinBodyRate >= 1, "timeouts.min_body_rate", "must be positive")
	add(t.MinWriteRate >= 1, "timeouts.min_write_rate", "must be positive")
}

func parsePrefixes(list []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(list))

	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))

			continue
		}

		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, errors.New(s + " is neither an address nor a network such as 10.0.0.0/8")
		}

		out = append(out, p.Masked())
	}

	return out, nil
}
