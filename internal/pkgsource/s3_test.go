package pkgsource_test

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/pkgsource"
)

// storage answers as object storage does; broken may spoil an answer.
type storage struct {
	objects map[string]string
	broken  func(w http.ResponseWriter, r *http.Request, key string) bool
}

func (s *storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")

	fail := func(code int, name string) {
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>m</Message></Error>", name)
	}

	switch {
	case !strings.Contains(r.Header.Get("Authorization"), "Credential=access/"):
		fail(http.StatusForbidden, "InvalidAccessKeyId")
	case bucket != "models":
		fail(http.StatusNotFound, "NoSuchBucket")
	case s.broken != nil && s.broken(w, r, key):
	case key == "":
		s.list(w, r.URL.Query().Get("prefix"))
	case s.objects[key] == "":
		fail(http.StatusNotFound, "NoSuchKey")
	default:
		w.Header().Set("ETag", etag(s.objects[key]))
		http.ServeContent(w, r, "", time.Unix(1_700_000_000, 0), strings.NewReader(s.objects[key]))
	}
}

func etag(text string) string {
	sum := md5.Sum([]byte(text))

	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func (s *storage) list(w http.ResponseWriter, prefix string) {
	_, _ = io.WriteString(w, `<ListBucketResult><IsTruncated>false</IsTruncated>`)

	var keys []string

	for key := range s.objects {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}

	slices.Sort(keys)

	for _, key := range keys {
		_, _ = fmt.Fprintf(w, `<Contents><Key>%s</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>%s</ETag><Size>%d</Size></Contents>`,
			key, etag(s.objects[key]), len(s.objects[key]))
	}

	_, _ = io.WriteString(w, `</ListBucketResult>`)
}

func s3Config(t *testing.T, endpoint string) pkgsource.S3Config {
	t.Helper()

	dir := t.TempDir()
	c := pkgsource.S3Config{Endpoint: endpoint, Region: "us-east-1", PathStyle: true, AccessKeyFile: filepath.Join(dir, "a"), SecretKeyFile: filepath.Join(dir, "s")}
	must(t, os.WriteFile(c.AccessKeyFile, []byte("access\n"), 0o600))
	must(t, os.WriteFile(c.SecretKeyFile, []byte("s3cr3tkey\n"), 0o600))
	must(t, c.Validate())

	return c
}

func objects(t *testing.T) map[string]string {
	t.Helper()

	return map[string]string{
		"ocr/model/config.json": "{}", "ocr/model/sub/w": random(300_000), "ocr/train/log": "x", "ocr2/config.json": "[]",
		"lone/digits.onnx": "weights", "p/p.tgz": string(gzipped(t, tarOf(t, entry{name: "config.json", text: "{}"}))),
		"bad/../evil": "x", "both/a": "x", "both/a/b": "y",
	}
}

func TestBuckets(t *testing.T) {
	t.Parallel()

	f := fetcher(t, pkgsource.Config{S3: s3Config(t, serve(t, (&storage{objects: objects(t)}).ServeHTTP))})

	for i, loc := range []string{"s3://models/ocr", "obs://models/ocr/", "s3://models/ocr/model"} {
		var done, total int64

		dir, err := f.Fetch(t.Context(), fmt.Sprint("m", i), loc, func(d, n int64) { done, total = d, n })
		must(t, err)

		if read(t, dir, "config.json") != "{}" || read(t, dir, "sub/w") != random(300_000) || done != total || done < 300_002 {
			t.Fatalf("%s came wrong, %d of %d bytes", loc, done, total)
		}
	}

	dir, err := f.Fetch(t.Context(), "lone", "s3://models/lone/digits.onnx", nil)
	must(t, err)

	if read(t, dir, "model.onnx") != "weights" {
		t.Fatal("the model came wrong")
	}

	dir, err = f.Fetch(t.Context(), "tgz", "s3://models/p/p.tgz", nil)
	must(t, err)

	if read(t, dir, "config.json") != "{}" {
		t.Fatal("the archive came wrong")
	}
}

func TestBucketFaults(t *testing.T) {
	t.Parallel()

	url := serve(t, (&storage{objects: objects(t)}).ServeHTTP)
	good := s3Config(t, url)
	wrong := s3Config(t, url)
	must(t, os.WriteFile(wrong.AccessKeyFile, []byte("other"), 0o600))

	missing := good
	missing.SecretKeyFile += "x"

	down := s3Config(t, serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	damaged := s3Config(t, serve(t, (&storage{objects: objects(t), broken: func(w http.ResponseWriter, _ *http.Request, key string) bool {
		if key != "ocr/model/config.json" {
			return false
		}

		w.Header().Set("ETag", etag("{}"))
		w.Header().Set("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
		_, _ = w.Write([]byte("{]"))

		return true
	}}).ServeHTTP))
	changing := s3Config(t, serve(t, (&storage{objects: objects(t), broken: func(w http.ResponseWriter, _ *http.Request, key string) bool {
		if key == "" {
			return false
		}

		w.WriteHeader(http.StatusPreconditionFailed)

		return true
	}}).ServeHTTP))

	for name, tc := range map[string]struct {
		s3   pkgsource.S3Config
		loc  string
		code fault.Code
		want string
	}{
		"no bucket":    {good, "s3://nothing/ocr", fault.ModelInvalid, "bucket nothing"},
		"no object":    {good, "s3://models/nothing", fault.ModelInvalid, "no object"},
		"wrong key":    {wrong, "s3://models/ocr", fault.ModelInvalid, "may not be read"},
		"no key file":  {missing, "s3://models/ocr", fault.Unavailable, "configured"},
		"down":         {down, "s3://models/ocr", fault.Unavailable, "503"},
		"damaged":      {damaged, "s3://models/ocr/model", fault.ModelInvalid, "damaged"},
		"changing":     {changing, "s3://models/ocr/model", fault.Unavailable, "changes"},
		"escape":       {good, "s3://models/bad", fault.ModelInvalid, "leads out"},
		"same name":    {good, "s3://models/both", fault.ModelInvalid, "same name"},
		"larger":       {good, "s3://models/ocr", fault.ModelInvalid, "larger than"},
		"many objects": {good, "s3://models", fault.ModelInvalid, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			cfg := pkgsource.Config{S3: tc.s3, Retries: 1, MaxFiles: 5}
			if name == "larger" {
				cfg.MaxBytes = 1000
			}

			_, err := fetcher(t, cfg).Fetch(t.Context(), "m1", tc.loc, nil)
			if !errors.Is(err, &fault.Error{Code: tc.code}) || !strings.Contains(fault.From(err).Message(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}

			if strings.Contains(err.Error(), "s3cr3tkey") {
				t.Fatalf("the error tells a secret: %v", err)
			}
		})
	}
}

func TestBucketResumesObjects(t *testing.T) {
	t.Parallel()

	var breaks, resumed atomic.Int64

	s := &storage{objects: objects(t)}
	s.broken = func(w http.ResponseWriter, r *http.Request, key string) bool {
		if key != "ocr/model/sub/w" {
			return false
		}

		if r.Header.Get("Range") != "" {
			resumed.Add(1)

			return false
		}

		breaks.Add(1)
		w.Header().Set("ETag", etag(s.objects[key]))
		w.Header().Set("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
		w.Header().Set("Content-Length", "300000")
		_, _ = io.WriteString(w, s.objects[key][:200_000])
		_ = http.NewResponseController(w).Flush()

		panic(http.ErrAbortHandler)
	}

	dir, err := fetcher(t, pkgsource.Config{S3: s3Config(t, serve(t, s.ServeHTTP))}).Fetch(t.Context(), "m1", "s3://models/ocr", nil)
	must(t, err)

	if read(t, dir, "sub/w") != random(300_000) || breaks.Load() != 1 || resumed.Load() != 1 {
		t.Fatalf("%d breaks, %d resumed", breaks.Load(), resumed.Load())
	}
}

func TestS3ConfigIsChecked(t *testing.T) {
	t.Parallel()

	for _, bad := range []pkgsource.S3Config{
		{Region: "x"},
		{Endpoint: "host:9000"},
		{Endpoint: "ftp://h"},
		{Endpoint: "http://h/path"},
		{Endpoint: "http://u:p@h"},
		{Endpoint: "http://h", AccessKeyFile: "a"},
	} {
		if err := bad.Validate(); err == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

// TestRealObjectStorage uses a storage server that others wrote: versitygw, which "make test" installs.
func TestRealObjectStorage(t *testing.T) {
	t.Parallel()

	endpoint := gateway(t, versitygw(t))
	host := strings.TrimPrefix(endpoint, "http://")

	client, err := minio.New(host, &minio.Options{Creds: credentials.NewStaticV4("access", "s3cr3tkey", ""), Region: "us-east-1", BucketLookup: minio.BucketLookupPath})
	must(t, err)
	must(t, client.MakeBucket(t.Context(), "models", minio.MakeBucketOptions{}))

	big := random(7 << 20)
	put := func(key, text string) {
		_, err := client.PutObject(t.Context(), "models", key, strings.NewReader(text), int64(len(text)), minio.PutObjectOptions{PartSize: 5 << 20})
		must(t, err)
	}
	put("ocr/model/config.json", "{}")
	put("ocr/model/sub/w", big) // in two parts
	put("p.zip", string(zipOf(t, entry{name: "config.json", text: "{}"})))

	for i := range 1100 { // more than one page of a list
		put(fmt.Sprintf("many/f%d", i), "x")
	}

	f := fetcher(t, pkgsource.Config{S3: s3Config(t, endpoint), Retries: 1})

	dir, err := f.Fetch(t.Context(), "m1", "s3://models/ocr", nil)
	must(t, err)

	if read(t, dir, "config.json") != "{}" || read(t, dir, "sub/w") != big {
		t.Fatal("the package came damaged")
	}

	dir, err = f.Fetch(t.Context(), "m2", "obs://models/p.zip", nil)
	must(t, err)

	if read(t, dir, "config.json") != "{}" {
		t.Fatal("the archive came damaged")
	}

	dir, err = f.Fetch(t.Context(), "m3", "s3://models/many/", nil)
	must(t, err)

	if got, err := os.ReadDir(dir); err != nil || len(got) != 1100 {
		t.Fatalf("%d files, %v", len(got), err)
	}

	for loc, want := range map[string]string{"s3://models/none": "no object", "s3://none/x": "does not exist"} {
		if _, err := f.Fetch(t.Context(), "m4", loc, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("%s: %v", loc, err)
		}
	}

	wrong := s3Config(t, endpoint)
	must(t, os.WriteFile(wrong.SecretKeyFile, []byte("wrong"), 0o600))

	if _, err := fetcher(t, pkgsource.Config{S3: wrong}).Fetch(t.Context(), "m5", "s3://models/ocr", nil); err == nil || !strings.Contains(err.Error(), "SignatureDoesNotMatch") {
		t.Fatalf("got %v", err)
	}
}

// versitygw is the storage server that SLUICE_S3_TEST names, or that the Makefile put into bin, or that is
// installed. Without one the test is skipped, and says why the Makefile could not install it.
func versitygw(t *testing.T) string {
	t.Helper()

	if bin := os.Getenv("SLUICE_S3_TEST"); bin != "" {
		return bin
	}

	const installed = "../../bin/versitygw-v1.8.0"

	bin, err := filepath.Abs(installed)
	must(t, err)

	if _, err := os.Stat(bin); err == nil {
		return bin
	}

	if found, err := exec.LookPath("versitygw"); err == nil {
		return found
	}

	why, err := os.ReadFile(installed + ".log")
	if err != nil {
		why = []byte(`"make test" installs it`)
	}

	t.Skipf("versitygw is not installed: %s", why)

	return ""
}

// gateway starts the storage server and returns its endpoint.
func gateway(t *testing.T, bin string) string {
	t.Helper()

	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)

	_, port, err := net.SplitHostPort(ln.Addr().String())
	must(t, err)
	must(t, ln.Close())

	cmd := exec.CommandContext(t.Context(), bin, "--port", "127.0.0.1:"+port, "--access", "access", "--secret", "s3cr3tkey", "posix", t.TempDir())
	cmd.Cancel = func() error { return cmd.Process.Kill() }

	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})

	endpoint := "http://127.0.0.1:" + port

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
		must(t, err)

		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			http.DefaultClient.CloseIdleConnections()

			return endpoint
		}

		select {
		case <-ctx.Done():
			t.Fatalf("the storage server does not start")
		case <-time.After(50 * time.Millisecond):
		}
	}
}
