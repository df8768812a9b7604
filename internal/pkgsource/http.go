package pkgsource

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
)

const maxRedirects = 5

func newClient(cfg *Config) *http.Client {
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second, Control: guard(cfg.AllowPrivate)}

	return &http.Client{
		CheckRedirect: checkRedirect,
		Transport: &http.Transport{
			// No proxy: it would dial in our place, and what it dials nobody checks.
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    15 * time.Second,
			ResponseHeaderTimeout:  cfg.IdleTimeout + 5*time.Second, // the timer of the attempt comes first
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
			DisableKeepAlives:      true,
			ForceAttemptHTTP2:      true,
		},
	}
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL

	switch {
	case len(via) > maxRedirects:
		return refuse(nil, "leads through more than %d redirects", maxRedirects)
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return refuse(nil, "leads to a scheme that is not http or https")
	case from.Scheme == "https" && req.URL.Scheme == "http":
		return refuse(nil, "leads from https to http")
	case req.URL.User != nil:
		return refuse(nil, "leads to a URL with a user name or a password")
	}

	req.Header.Del("Referer") // it would hold a query

	return nil
}

// archive fetches one file and unpacks it.
func (f *Fetcher) archive(ctx context.Context, loc location, work, tree string, report Progress) error {
	d := &download{
		cfg: &f.cfg, loc: loc, path: filepath.Join(work, "download"), id: loc.url,
		open: func(ctx context.Context, at int64, validator string) (piece, error) {
			return f.get(ctx, loc, at, validator)
		},
		report: report,
	}
	if err := d.run(ctx); err != nil {
		return err
	}

	if err := d.checkHash(ctx, loc.sha256); err != nil {
		return err
	}

	return f.place(ctx, loc, d.path, tree)
}

// place makes the files of the package out of the one that came.
func (f *Fetcher) place(ctx context.Context, loc location, file, tree string) error {
	if loc.single {
		return os.Rename(file, filepath.Join(tree, "model.onnx"))
	}

	return unpack(ctx, file, tree, limits{name: loc.shown, bytes: f.cfg.MaxBytes, files: f.cfg.MaxFiles})
}

// get asks for the file from an offset on; the server may begin at 0 all the same.
func (f *Fetcher) get(ctx context.Context, loc location, at int64, validator string) (piece, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, loc.url, http.NoBody)
	if err != nil {
		return piece{}, refuse(nil, "is not a URL")
	}

	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "sluice")

	if at > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(at, 10)+"-")
		req.Header.Set("If-Range", validator)
	}

	resp, err := f.client.Do(req)
	if err != nil {
		return piece{}, dialError(loc, err)
	}

	p, err := answer(loc, resp, at, validator)
	if err != nil {
		_ = resp.Body.Close() // nothing of it is wanted
	}

	return p, err
}

// dialError drops the URL, which net/http puts into its errors.
func dialError(loc location, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}

	var (
		f   *fault.Error
		dns *net.DNSError
	)

	switch {
	case errors.As(err, &f):
		return err
	case errors.Is(err, errAddress):
		return refuse(err, "leads to an address of a private network or of this machine, which is not permitted (models.allow_private)")
	case errors.As(err, &dns) && dns.IsNotFound:
		return unreachable(err, loc, "names a host that does not exist")
	default:
		return err
	}
}

// answer tells what the server's answer means.
func answer(loc location, resp *http.Response, at int64, validator string) (piece, error) {
	p := piece{body: resp.Body, total: resp.ContentLength, validator: validatorOf(resp.Header)}

	switch resp.StatusCode {
	case http.StatusOK:
		return p, nil
	case http.StatusPartialContent:
		start, total, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || at == 0 || start != at || p.validator != "" && p.validator != validator {
			return piece{}, errChanged
		}

		p.offset, p.total, p.validator = start, total, validator

		return p, nil
	case http.StatusRequestedRangeNotSatisfiable:
		return piece{}, errChanged
	default:
		return piece{}, statusError(loc, resp)
	}
}

func statusError(loc location, resp *http.Response) error {
	code := resp.StatusCode
	if code >= 500 || code == http.StatusRequestTimeout || code == http.StatusTooManyRequests || code == http.StatusTooEarly {
		after, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // a date counts as none

		return &temporary{status: code, after: time.Duration(min(max(after, 0), 60)) * time.Second}
	}

	text := http.StatusText(code)

	switch code {
	case http.StatusNotFound, http.StatusGone:
		return refuse(nil, "names %s, which does not exist (%d %s)", loc.shown, code, text)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return refuse(nil, "names %s, which may not be read (%d %s)", loc.shown, code, text)
	default:
		return refuse(nil, "names %s, for which the server answers %d %s", loc.shown, code, text)
	}
}

// temporary is an answer that may be better next time.
type temporary struct {
	status int
	after  time.Duration
}

// Error implements error.
func (t *temporary) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the server answers %d %s", t.status, http.StatusText(t.status)))
}

// validatorOf is what can prove later that the file is still the same: a strong ETag, or a
// time of change that lies well before the answer.
func validatorOf(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) && len(tag) < 1024 {
		return tag
	}

	modified, err := http.ParseTime(h.Get("Last-Modified"))
	if err != nil {
		return ""
	}

	date, err := http.ParseTime(h.Get("Date"))
	if err != nil || date.Sub(modified) < 2*time.Second {
		return ""
	}

	return h.Get("Last-Modified")
}

func contentRange(text string) (start, total int64, ok bool) {
	rest, ok := strings.CutPrefix(text, "bytes ")
	if !ok {
		return 0, 0, false
	}

	span, size, ok := strings.Cut(rest, "/")
	first, _, ok2 := strings.Cut(span, "-")

	if !ok || !ok2 {
		return 0, 0, false
	}

	start, err := strconv.ParseInt(first, 10, 64)
	if err != nil || start < 0 {
		return 0, 0, false
	}

	if size == "*" {
		return start, -1, true
	}

	total, err = strconv.ParseInt(size, 10, 64)

	return start, total, err == nil && total > start
}
