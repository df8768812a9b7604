package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/loadtest/request"
	"github.com/sluice-gateway/sluice/spec"
)

// authorizer makes requests authentic.
type authorizer struct {
	field  *request.Field
	signer *sign.Prepared
}

// apply adds credentials to an item.
func (a *authorizer) apply(it *request.Item) {
	if a.field != nil {
		it.Fields = append(it.Fields, *a.field)
	}

	it.Signer = a.signer
}

// authorizer reads --auth. Secrets come from the environment or the data directory, never from flags.
func (r *resolver) authorizer(ctx context.Context) (*authorizer, error) {
	kind := r.flags.auth
	if kind == "" {
		kind = "none"
		if (len(r.flags.services) > 0 || r.flags.mix != "") && !r.flags.direct {
			kind = "token"
		}
	}

	switch kind {
	case "none":
		return &authorizer{}, nil
	case "token":
		token, err := r.token(ctx)

		return headerAuth("X-Auth-Token", token), err
	case "appcode":
		return fromEnv("X-Apig-AppCode", "SLUICE_APP_CODE")
	case "apikey":
		return fromEnv("apikey", "SLUICE_APP_KEY")
	case "aksk":
		p, err := r.connect()
		if err != nil {
			return nil, err
		}

		key, secret, err := p.AccessKey()
		if err != nil {
			return nil, err //nolint:wrapcheck // it tells what to give
		}

		return signing(key, secret)
	case "app":
		return signing(os.Getenv("SLUICE_APP_KEY"), spec.NewSecret(os.Getenv("SLUICE_APP_SECRET")))
	default:
		return nil, usage("--auth %s: want token, aksk, app, appcode, apikey or none", kind)
	}
}

func (r *resolver) token(ctx context.Context) (string, error) {
	if t := firstOf(r.flags.conn.Token, os.Getenv("SLUICE_TOKEN")); t != "" {
		return t, nil
	}

	p, err := r.connect()
	if err != nil {
		return "", err
	}

	token, err := p.Token(ctx)
	if err != nil {
		return "", fmt.Errorf("--auth token: %w", err)
	}

	return token, nil
}

func headerAuth(name, value string) *authorizer {
	return &authorizer{field: &request.Field{Name: name, Value: value}}
}

func fromEnv(header, variable string) (*authorizer, error) {
	value := os.Getenv(variable)
	if value == "" {
		return nil, usage("--auth needs $%s", variable)
	}

	return headerAuth(header, value), nil
}

func signing(key string, secret spec.Secret) (*authorizer, error) {
	if key == "" || secret.Empty() {
		return nil, usage("--auth app needs $SLUICE_APP_KEY and $SLUICE_APP_SECRET")
	}

	signer, err := sign.Signer{AccessKey: key, Secret: secret}.Prepare()
	if err != nil {
		return nil, fmt.Errorf("--auth: %w", err)
	}

	return &authorizer{signer: signer}, nil
}

// client makes calls beside the load: metadata and statistics.
func (r *resolver) client() *http.Client {
	const timeout = 10 * time.Second

	tr := &http.Transport{TLSClientConfig: r.tls.Clone(), DisableKeepAlives: true}

	return &http.Client{
		Transport: tr, Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

const maxMetadata = 8 << 20

// get reads a document of the target, with the credentials of the load.
func (r *resolver) get(ctx context.Context, base *url.URL, path string) ([]byte, error) {
	u := base.JoinPath(path)

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", u, err)
	}

	for _, h := range r.flags.headers {
		if name, value, ok := strings.Cut(h, ":"); ok && !strings.EqualFold(strings.TrimSpace(name), "content-type") {
			req.Header.Set(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}

	if f := r.auth.field; f != nil {
		req.Header.Set(f.Name, f.Value)
	}

	if s := r.auth.signer; s != nil {
		s.SignHTTP(req, nil, time.Now())
	}

	resp, err := r.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}

		return nil, fmt.Errorf("read %s: %w", u, err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only

	data, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", u, err)
	}

	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		return nil, &refusedError{u.Host, resp.StatusCode, told(data)}
	}

	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("read %s: HTTP %s %s", u, resp.Status, bytes.TrimSpace(data[:min(len(data), 200)]))
	}

	return data, nil
}

// refusedError tells that the target does not take the credentials.
type refusedError struct {
	host   string
	status int
	told   string
}

// Error implements error.
func (e *refusedError) Error() string {
	return fmt.Sprintf("%s refuses the credentials: HTTP %d %s", e.host, e.status, e.told)
}
