package cli

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxAnswerBytes bounds what the client reads of an answer.
const maxAnswerBytes = 64 << 20

// connection is where and as whom a command calls.
type connection struct {
	data           string // data directory of a local sluice, for defaults
	control, edge  string
	token, project string
	user, password string
	domain, caFile string
	insecure       bool
	timeout        time.Duration
	http           *http.Client
}

// APIError is an answer of the platform that is not a success.
type APIError struct {
	Status    int
	Code      string
	Msg       string
	RequestID string
}

// Error implements error in one line.
func (e *APIError) Error() string {
	text := fmt.Sprintf("%s (%s, HTTP %d", e.Msg, e.Code, e.Status)
	if e.RequestID != "" {
		text += ", request " + e.RequestID
	}

	return text + ")"
}

// prepare fills what flags and environment left open from the files of a local sluice.
func (c *connection) prepare() error {
	if err := c.prepareHTTP(); err != nil {
		return err
	}

	var endpoints struct {
		EdgeHTTP string `json:"edge_http"`
		Control  string `json:"control"`
	}

	if c.control == "" || c.edge == "" {
		err := readJSONFile(filepath.Join(c.data, "endpoints.json"), &endpoints)
		if err != nil && c.control == "" {
			return fmt.Errorf("no control address: give --control URL, or --data DIR of a running sluice (%w)", err)
		}
	}

	c.control = firstOf(c.control, endpoints.Control)
	c.edge = firstOf(c.edge, endpoints.EdgeHTTP)
	c.control = strings.TrimRight(c.control, "/")
	c.edge = strings.TrimRight(c.edge, "/")

	return c.prepareIdentity()
}

func (c *connection) prepareIdentity() error {
	if c.token != "" && c.project != "" {
		return nil
	}

	var boot struct {
		Domain    string `json:"domain"`
		ProjectID string `json:"project_id"`
		User      string `json:"user"`
		Password  string `json:"password"`
	}

	err := readJSONFile(filepath.Join(c.data, "bootstrap.json"), &boot)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}

	c.project = firstOf(c.project, boot.ProjectID)

	if c.user == "" {
		c.user, c.password, c.domain = boot.User, firstOf(c.password, boot.Password), firstOf(c.domain, boot.Domain)
	}

	return nil
}

func (c *connection) prepareHTTP() error {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.insecure} //nolint:gosec // the user asks for it by flag

	if c.caFile != "" {
		pool, err := readCertPool(c.caFile)
		if err != nil {
			return err
		}

		conf.RootCAs = pool
	}

	dialer := &net.Dialer{Timeout: 5 * time.Second}
	c.http = &http.Client{
		Timeout:       c.timeout,
		Transport:     &http.Transport{TLSClientConfig: conf, DialContext: dialer.DialContext, MaxIdleConnsPerHost: 4},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}

	return nil
}

// authenticate gets a project token unless one is there.
func (c *connection) authenticate(ctx context.Context) error {
	if c.token != "" {
		return nil
	}

	if c.user == "" || c.password == "" {
		return errors.New("no credentials: give --token, or --user, --password and --project, or --data DIR of a local sluice")
	}

	token, err := c.issueToken(ctx)
	if err != nil {
		return err
	}

	c.token = token

	return nil
}

func (c *connection) issueToken(ctx context.Context) (string, error) {
	user := map[string]any{"name": c.user, "password": c.password}
	if c.domain != "" {
		user["domain"] = map[string]any{"name": c.domain}
	}

	body := map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": user}},
		"scope":    map[string]any{"project": map[string]any{"id": c.project}},
	}}

	data, err := json.Marshal(body)
	if err != nil {
		return "", fmt.Errorf("get a token: %w", err)
	}

	resp, err := c.send(ctx, request{method: http.MethodPost, url: c.control + "/v3/auth/tokens", body: data, contentType: jsonType, bare: true})
	if err != nil {
		return "", fmt.Errorf("get a token: %w", err)
	}

	return resp.header.Get("X-Subject-Token"), nil
}

const jsonType = "application/json"

type request struct {
	method, url string
	body        []byte
	contentType string
	header      map[string]string
	bare        bool // without a token
}

type response struct {
	status int
	header http.Header
	body   []byte
}

// send makes one call; a status of 400 and above is an *APIError.
func (c *connection) send(ctx context.Context, r request) (*response, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("call %s: %w", r.url, err)
	}

	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}

	if !r.bare {
		req.Header.Set("X-Auth-Token", c.token)
	}

	for k, v := range r.header {
		req.Header.Set(k, v)
	}

	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}

		return nil, fmt.Errorf("cannot reach %s: %w", req.URL.Host, err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only

	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", req.URL.Host, err)
	}

	if resp.StatusCode >= http.StatusBadRequest {
		return nil, apiError(resp, data)
	}

	return &response{status: resp.StatusCode, header: resp.Header, body: data}, nil
}

func apiError(resp *http.Response, data []byte) error {
	var b struct {
		Code      string          `json:"error_code"`
		Msg       string          `json:"error_msg"`
		RequestID string          `json:"request_id"`
		Error     json.RawMessage `json:"error"`
	}

	e := &APIError{Status: resp.StatusCode, RequestID: resp.Header.Get("X-Request-Id"), Code: resp.Header.Get("X-Error-Code")}

	if json.Unmarshal(data, &b) == nil {
		e.Code = firstOf(b.Code, e.Code)
		e.Msg = b.Msg
		e.RequestID = firstOf(b.RequestID, e.RequestID)

		var text string

		var nested struct {
			Message string `json:"message"`
		}

		switch {
		case e.Msg != "":
		case json.Unmarshal(b.Error, &text) == nil:
			e.Msg = text
		case json.Unmarshal(b.Error, &nested) == nil:
			e.Msg = nested.Message
		}
	}

	e.Msg = firstOf(e.Msg, strings.TrimSpace(string(data[:min(len(data), 200)])), http.StatusText(resp.StatusCode))
	e.Code = firstOf(e.Code, "no code")

	return e
}

// api calls the management API below /v1/{project_id} and decodes the answer into out.
func (c *connection) api(ctx context.Context, method, path string, in, out any) error {
	if err := c.authenticate(ctx); err != nil {
		return err
	}

	if c.project == "" {
		return errors.New("no project: give --project ID")
	}

	return c.json(ctx, method, c.control+"/v1/"+url.PathEscape(c.project)+path, in, out)
}

func (c *connection) json(ctx context.Context, method, address string, in, out any) error {
	r := request{method: method, url: address}

	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}

		r.body, r.contentType = data, jsonType
	}

	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}

	if out == nil || len(resp.body) == 0 {
		return nil
	}

	if err := json.Unmarshal(resp.body, out); err != nil {
		return fmt.Errorf("the answer of %s is not what was expected: %w", address, err)
	}

	return nil
}

func readJSONFile(path string, dst any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}

	if err := json.Unmarshal(data, dst); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}

	return nil
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}

	return ""
}
