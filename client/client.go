package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/spec"
)

// Way is how calls reach a service.
type Way uint8

// Ways.
const (
	Direct Way = iota // to the instances
	Edge              // through the gateway
)

// Config of a Client.
type Config struct {
	// Through says whether calls skip the edge. Direct unless given.
	Through Way
	// Control is the base URL of the management API, for looking instances up; needed for Direct.
	Control string
	// Edge is the base URL of the gateway; needed for Edge.
	Edge string
	// Project and Service ids.
	Project, Service string

	// Token, or AccessKey and SecretKey, say who calls: at the edge, and when instances are looked up.
	Token                string
	AccessKey, SecretKey string
	// DirectKey is the key of the service's direct channel, if it has one.
	DirectKey string

	// Refresh is how old a look-up may be; default 10 s, at least 4 s: a user may ask 20 times a minute.
	Refresh time.Duration
	// Attempts in all, for what may be repeated; default 3.
	Attempts int
	// TLS towards edge, control and instances.
	TLS *tls.Config
	// MaxAnswer bounds an answer; default 64 MiB.
	MaxAnswer int64
}

const minRefresh = 4 * time.Second

func (c *Config) check() error {
	var errs []error

	need := func(name, value string, needed bool) {
		if needed && value == "" {
			errs = append(errs, fmt.Errorf("%s is required", name))
		}
	}

	need("Control", c.Control, c.Through == Direct)
	need("Project", c.Project, c.Through == Direct)
	need("Edge", c.Edge, c.Through == Edge)
	need("Service", c.Service, true)

	if (c.AccessKey == "") != (c.SecretKey == "") {
		errs = append(errs, errors.New("AccessKey and SecretKey belong together"))
	}

	if c.Through > Edge {
		errs = append(errs, errors.New("the field Through is neither Direct nor Edge"))
	}

	c.Control, c.Edge = strings.TrimRight(c.Control, "/"), strings.TrimRight(c.Edge, "/")

	if c.Refresh == 0 {
		c.Refresh = 10 * time.Second
	}

	c.Refresh = max(c.Refresh, minRefresh)

	if c.Attempts <= 0 {
		c.Attempts = 3
	}

	if c.MaxAnswer <= 0 {
		c.MaxAnswer = 64 << 20
	}

	return errors.Join(errs...)
}

// Client calls one service.
type Client struct {
	cfg    Config
	http   *http.Client
	signer *sign.Prepared // nil: by token
	known  directory

	closing context.Context //nolint:containedctx // the life of look-ups beside calls
	close   context.CancelFunc
	beside  sync.WaitGroup
}

// New returns a Client.
func New(cfg Config) (*Client, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}

	c := &Client{cfg: cfg, http: &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: cfg.TLS, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	c.closing, c.close = context.WithCancel(context.Background())

	if cfg.AccessKey != "" {
		signer, err := (sign.Signer{AccessKey: cfg.AccessKey, Secret: spec.NewSecret(cfg.SecretKey)}).Prepare()
		if err != nil {
			return nil, fmt.Errorf("client: %w", err)
		}

		c.signer = signer
	}

	return c, nil
}

// Close ends what runs beside calls and gives idle connections back.
func (c *Client) Close() error {
	c.close()
	c.beside.Wait()
	c.http.CloseIdleConnections()

	return nil
}

// Request is one call of the service.
type Request struct {
	// Method is POST unless given.
	Method string
	// Path at the engine, with a query if need be; "/" unless given.
	Path   string
	Header http.Header
	Body   []byte
	// Repeatable says that running the request twice does no harm. What never reached an instance is
	// repeated anyway.
	Repeatable bool
}

// Response is an answer, read to its end.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	// Instance that answered, if known.
	Instance string
}

// Error is an answer that is not a success.
type Error struct {
	Status int
	// Code and Msg as the platform tells them; under /v2 there is only a message.
	Code, Msg string
	RequestID string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("%s (%s, HTTP %d, request %s)", e.Msg, e.Code, e.Status, e.RequestID)
}

// Do sends a request and reads the answer, whatever its status.
func (c *Client) Do(ctx context.Context, r *Request) (*Response, error) {
	var (
		tried []*endpoint
		last  error
	)

	for range c.cfg.Attempts {
		e, err := c.pick(ctx, tried)
		if err != nil {
			if last != nil {
				return nil, last
			}

			return nil, err
		}

		resp, verdict, err := c.attempt(ctx, r, e)
		if verdict == final {
			return resp, err
		}

		last = err
		if resp != nil {
			last = resp.failure()
		}

		if verdict == unsafe && !r.Repeatable {
			return resp, err
		}

		tried = append(tried, e)
	}

	return nil, last
}

// verdict says what may follow an attempt.
type verdict uint8

const (
	final   verdict = iota
	notSent         // certainly not run: it may go elsewhere
	unsafe          // may have run
)

// attempt sends the request once. e is nil through the edge.
func (c *Client) attempt(ctx context.Context, r *Request, e *endpoint) (*Response, verdict, error) {
	req, err := c.request(ctx, r, e)
	if err != nil {
		return nil, final, err
	}

	if e != nil {
		e.inFlight.Add(1)
		defer e.inFlight.Add(-1)
	}

	sent := time.Now()

	resp, err := c.http.Do(req)
	if err != nil {
		c.failed(e)

		if ctx.Err() != nil {
			return nil, final, fmt.Errorf("call the service: %w", err)
		}

		if dialFailed(err) {
			return nil, notSent, fmt.Errorf("call the service: %w", err)
		}

		return nil, unsafe, fmt.Errorf("call the service: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only

	body, err := io.ReadAll(io.LimitReader(resp.Body, c.cfg.MaxAnswer+1))
	if err == nil && int64(len(body)) > c.cfg.MaxAnswer {
		return nil, final, fmt.Errorf("the answer is longer than %d bytes", c.cfg.MaxAnswer)
	}

	if err != nil {
		c.failed(e)

		if ctx.Err() != nil {
			return nil, final, fmt.Errorf("read the answer: %w", err)
		}

		return nil, unsafe, fmt.Errorf("read the answer: %w", err)
	}

	out := &Response{Status: resp.StatusCode, Header: resp.Header, Body: body, Instance: resp.Header.Get("X-Sluice-Instance")}

	return out, c.judge(resp, e, out, time.Since(sent)), nil
}

// judge says whether an answer may be followed by another attempt, and learns from it.
func (c *Client) judge(resp *http.Response, e *endpoint, out *Response, took time.Duration) verdict {
	if e == nil {
		return final // the gateway has repeated what may be
	}

	out.Instance = e.InstanceID
	e.learn(took)

	draining := resp.Header.Get("X-Worker-Draining") != ""
	if draining || resp.Close {
		c.leave(e)
	}

	switch {
	case resp.StatusCode != http.StatusServiceUnavailable:
		return final
	case draining:
		return notSent // it says so itself
	case resp.Close:
		return unsafe
	default:
		return final
	}
}

// dialFailed reports whether no connection came about, so that nothing was sent.
func dialFailed(err error) bool {
	var op *net.OpError

	return errors.As(err, &op) && op.Op == "dial"
}

// request builds the HTTP request for an attempt.
func (c *Client) request(ctx context.Context, r *Request, e *endpoint) (*http.Request, error) {
	method, path := r.Method, r.Path
	if method == "" {
		method = http.MethodPost
	}

	if path == "" {
		path = "/"
	}

	if path[0] != '/' {
		return nil, fmt.Errorf("path %q does not begin with a slash", path)
	}

	address := c.cfg.Edge + "/v1/infers/" + url.PathEscape(c.cfg.Service) + path
	if e != nil {
		address = e.base + path
	}

	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("call the service: %w", err)
	}

	for name, values := range r.Header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}

	if e == nil {
		c.authenticate(req, r.Body)
	} else if c.cfg.DirectKey != "" {
		req.Header.Set("X-Sluice-Direct-Key", c.cfg.DirectKey)
	}

	return req, nil
}

// authenticate says who calls, for the edge and the management API.
func (c *Client) authenticate(req *http.Request, body []byte) {
	switch {
	case c.signer != nil:
		c.signer.SignHTTP(req, body, time.Now())
	case c.cfg.Token != "":
		req.Header.Set("X-Auth-Token", c.cfg.Token)
	}
}
