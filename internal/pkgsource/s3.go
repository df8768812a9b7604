package pkgsource

import (
	"context"
	"crypto/md5" //nolint:gosec // what an ETag is made of; SHA-256 is computed by the package store
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// S3Config is the object storage that s3:// and obs:// mean.
type S3Config struct {
	// Endpoint is https://host[:port], or http:// for storage on a network of one's own. The
	// operator chose it, so that it may be private.
	Endpoint string
	Region   string
	// PathStyle puts the bucket into the path rather than into the host name.
	PathStyle bool
	// AccessKeyFile and SecretKeyFile hold one key each, and are read anew for every fetch.
	// Without them, requests are not signed.
	AccessKeyFile, SecretKeyFile string
	// CACert is a PEM file with who may sign the certificate of the endpoint.
	CACert string
}

const (
	parallel   = 4
	maxKeyFile = 4 << 10
)

// Validate finds mistakes without looking at the files.
func (c *S3Config) Validate() error {
	if c.Endpoint == "" {
		if *c != (S3Config{}) {
			return errors.New("endpoint is required")
		}

		return nil
	}

	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return errors.New("endpoint is not a URL such as https://host:9000")
	}

	if (c.AccessKeyFile == "") != (c.SecretKeyFile == "") {
		return errors.New("access_key_file and secret_key_file belong together")
	}

	return nil
}

func (c *S3Config) connect(idle time.Duration) (*minio.Core, *http.Transport, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, nil, fmt.Errorf("models.s3.endpoint: %w", err)
	}

	creds := credentials.NewStaticV4("", "", "")

	if c.AccessKeyFile != "" {
		access, err := keyFile(c.AccessKeyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("models.s3.access_key_file: %w", err)
		}

		secret, err := keyFile(c.SecretKeyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("models.s3.secret_key_file: %w", err)
		}

		creds = credentials.NewStaticV4(access, secret, "")
	}

	trust := &tls.Config{MinVersion: tls.VersionTLS12}

	if c.CACert != "" {
		pem, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, nil, fmt.Errorf("models.s3.ca_cert: %w", err)
		}

		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("models.s3.ca_cert: %s holds no certificate", c.CACert)
		}
	}

	transport := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSClientConfig:        trust,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  idle,
		IdleConnTimeout:        idle,
		MaxIdleConnsPerHost:    parallel,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}

	lookup := minio.BucketLookupDNS
	if c.PathStyle {
		lookup = minio.BucketLookupPath
	}

	region := c.Region
	if region == "" {
		region = "us-east-1" // else the client asks the server, which few but Amazon answer
	}

	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds: creds, Secure: u.Scheme == "https", Transport: transport, Region: region, BucketLookup: lookup, MaxRetries: 1,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("models.s3: %w", err)
	}

	return core, transport, nil
}

func keyFile(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // read only

	data, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return "", err
	}

	key := strings.TrimSpace(string(data))
	if key == "" || strings.ContainsAny(key, "\r\n") {
		return "", fmt.Errorf("%s does not hold one key", name)
	}

	return key, nil
}

// object is one file to fetch.
type object struct {
	key, rel, etag string
	size           int64
}

// bucketFetch is the transfer of all objects under a prefix.
type bucketFetch struct {
	*Fetcher

	core *minio.Core
	loc  location
	work string
	tree string

	mu     sync.Mutex // guards done and report
	done   map[string]int64
	sum    int64
	total  int64
	report Progress
}

func (f *Fetcher) bucket(ctx context.Context, loc location, work, tree string, report Progress) error {
	core, transport, err := f.cfg.S3.connect(f.cfg.IdleTimeout)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "The object storage of models is not configured rightly.")
	}
	defer transport.CloseIdleConnections()

	b := &bucketFetch{Fetcher: f, core: core, loc: loc, work: work, tree: tree, done: map[string]int64{}, report: report}

	objects, err := b.list(ctx)
	if err != nil {
		return err
	}

	for i := range objects {
		b.total += objects[i].size
	}

	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)

	for i := range objects {
		group.Go(func() error { return b.object(gctx, &objects[i]) })
	}

	if err := group.Wait(); err != nil {
		return err
	}

	return b.place(ctx, objects)
}

// list finds the objects, again after failures that may pass.
func (b *bucketFetch) list(ctx context.Context) ([]object, error) {
	d := &download{cfg: &b.cfg, loc: b.loc}

	for failures := 1; ; failures++ {
		objects, err := b.listOnce(ctx)
		if err == nil {
			return objects, nil
		}

		if ctx.Err() != nil || permanent(err) || failures > b.cfg.Retries {
			return nil, d.final(ctx, err)
		}

		if err := d.pause(ctx, failures, err); err != nil {
			return nil, err
		}
	}
}

func (b *bucketFetch) listOnce(ctx context.Context) ([]object, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	var (
		objects []object
		size    int64
	)

	seen := map[string]bool{}

	for info := range b.core.ListObjectsIter(ctx, b.loc.bucket, minio.ListObjectsOptions{Prefix: b.loc.prefix, Recursive: true}) {
		if info.Err != nil {
			return nil, b.s3Error(info.Err)
		}

		o, ok, err := b.accept(&info)
		if err != nil {
			return nil, err
		}

		if !ok {
			continue
		}

		if size += o.size; size > b.cfg.MaxBytes {
			return nil, refuse(nil, "names %s, which is larger than %d bytes", b.loc.shown, b.cfg.MaxBytes)
		}

		if seen[o.rel] {
			return nil, refuse(nil, "holds %s twice", quoted(o.rel))
		}

		seen[o.rel] = true

		if objects = append(objects, o); len(objects) > b.cfg.MaxFiles {
			return nil, refuse(nil, "names %s, which has more than %d objects", b.loc.shown, b.cfg.MaxFiles)
		}
	}

	if err := ctx.Err(); err != nil {
		return nil, err
	}

	if len(objects) == 0 {
		return nil, refuse(nil, "names %s, where no object is", b.loc.shown)
	}

	return objects, nil
}

// accept decides whether a listed object belongs to the package, and to which file it goes.
func (b *bucketFetch) accept(info *minio.ObjectInfo) (object, bool, error) {
	rel := info.Key

	if p := b.loc.prefix; p != "" && info.Key != p {
		var ok bool
		if rel, ok = strings.CutPrefix(info.Key, p+"/"); !ok {
			return object{}, false, nil // "model2" when "model" is asked for
		}
	} else if p != "" {
		rel = path.Base(p)
	}

	if rel == "" || strings.HasSuffix(rel, "/") {
		return object{}, false, nil // the mark of a folder
	}

	name, err := clean(rel)
	if err != nil {
		return object{}, false, err
	}

	if info.Size < 0 {
		return object{}, false, refuse(nil, "names %s, where an object has no size", b.loc.shown)
	}

	return object{key: info.Key, rel: name, etag: strings.Trim(info.ETag, `"`), size: info.Size}, true, nil
}

func (b *bucketFetch) part(o *object) string {
	sum := sha256.Sum256([]byte(o.key))

	return filepath.Join(b.work, "objects", hex.EncodeToString(sum[:]))
}

// object fetches one object and holds it against its size and ETag.
func (b *bucketFetch) object(ctx context.Context, o *object) error {
	plain := true

	d := &download{
		cfg: &b.cfg, loc: b.loc, path: b.part(o), id: fmt.Sprintf("%s/%s %s %d", b.loc.bucket, o.key, o.etag, o.size),
		open: func(ctx context.Context, at int64, _ string) (piece, error) {
			p, simple, err := b.get(ctx, o, at)
			plain = simple

			return p, err
		},
		report: func(done, _ int64) { b.progress(o.key, done) },
	}
	if err := d.run(ctx); err != nil {
		return err
	}

	if d.at != o.size {
		return unreachable(nil, b.loc, "changes while it is fetched")
	}

	return b.checkETag(ctx, o, d.path, plain)
}

func (b *bucketFetch) get(ctx context.Context, o *object, at int64) (p piece, plain bool, err error) {
	var opts minio.GetObjectOptions

	if o.etag != "" {
		if err := opts.SetMatchETag(o.etag); err != nil {
			return piece{}, false, fmt.Errorf("ask for an object: %w", err)
		}
	}

	if at > 0 {
		if err := opts.SetRange(at, 0); err != nil {
			return piece{}, false, fmt.Errorf("ask for an object: %w", err)
		}
	}

	body, info, header, err := b.core.GetObject(ctx, b.loc.bucket, o.key, opts)
	if err != nil {
		return piece{}, false, b.s3Error(err)
	}

	p = piece{body: body, offset: at, total: o.size, validator: o.etag}

	if at > 0 {
		if start, _, ok := contentRange(header.Get("Content-Range")); !ok || start != at {
			p.offset = 0 // all of it
		}
	}

	if info.Size >= 0 && p.offset+info.Size != o.size {
		return piece{}, false, errors.Join(errChanged, body.Close())
	}

	return p, !keyed(header), nil
}

// keyed tells whether the server encrypts in a way that makes ETags something else than MD5.
func keyed(h http.Header) bool {
	for name := range h {
		if strings.Contains(strings.ToLower(name), "server-side-encryption") {
			return true
		}
	}

	return false
}

func (b *bucketFetch) progress(key string, done int64) {
	b.mu.Lock()
	defer b.mu.Unlock()

	b.sum += done - b.done[key]
	b.done[key] = done
	b.report(b.sum, b.total)
}

// checkETag compares an object with its MD5, where the ETag is one.
func (b *bucketFetch) checkETag(ctx context.Context, o *object, file string, plain bool) error { //nolint:revive // a fact about the object
	want, err := hex.DecodeString(o.etag)
	if err != nil || len(want) != md5.Size || !plain {
		return nil
	}

	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only

	h := md5.New() //nolint:gosec // see the import
	if _, err := io.Copy(h, &stoppable{ctx, in}); err != nil {
		return err
	}

	if got := h.Sum(nil); string(got) != string(want) {
		return refuse(nil, "names an object that came damaged: %s has the MD5 %x, not %x", quoted(o.rel), got, want)
	}

	return nil
}

// place gives the files their names. One object alone may be an archive.
func (b *bucketFetch) place(ctx context.Context, objects []object) error {
	if len(objects) == 1 && objects[0].key == b.loc.prefix {
		return b.Fetcher.place(ctx, b.loc, b.part(&objects[0]), b.tree)
	}

	root, err := os.OpenRoot(b.tree)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only made directories

	for i := range objects {
		o := &objects[i]

		err := root.MkdirAll(path.Dir(o.rel), 0o755)
		if err == nil {
			err = os.Rename(b.part(o), filepath.Join(b.tree, filepath.FromSlash(o.rel)))
		}

		if err != nil {
			return refuse(err, "names a prefix in which an object and a folder have the same name: %s", quoted(o.rel))
		}
	}

	return nil
}

// s3Error tells errors of the storage by their kind; none of its texts holds a key.
func (b *bucketFetch) s3Error(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}

	r := minio.ToErrorResponse(err)

	switch {
	case r.Code == "NoSuchBucket":
		return refuse(nil, "names the bucket %s, which does not exist", b.loc.bucket)
	case r.Code == "NoSuchKey" || r.StatusCode == http.StatusPreconditionFailed || r.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return errChanged
	case r.Code == "AccessDenied", r.Code == "InvalidAccessKeyId", r.Code == "SignatureDoesNotMatch",
		r.StatusCode == http.StatusUnauthorized, r.StatusCode == http.StatusForbidden:
		return refuse(nil, "names %s, which may not be read: the object storage answers %s", b.loc.shown, r.Code)
	case r.StatusCode >= 500, r.StatusCode == http.StatusTooManyRequests, r.Code == "SlowDown":
		return &temporary{status: r.StatusCode}
	case r.StatusCode >= 400:
		return refuse(nil, "names %s, for which the object storage answers %d %s", b.loc.shown, r.StatusCode, r.Code)
	default:
		return err
	}
}
