package pkgsource_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/pkgsource"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// entry is one member of an archive that a test makes.
type entry struct {
	name string
	text string
	kind byte // tar type; 0 is a file
	link string
	mode int64
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()

	var buf bytes.Buffer

	w := tar.NewWriter(&buf)

	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.text)), Typeflag: e.kind, Linkname: e.link, Mode: 0o644 | e.mode}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}

		if e.kind == tar.TypeXGlobalHeader {
			h = &tar.Header{Typeflag: e.kind, PAXRecords: map[string]string{"comment": "made by a version control system"}}
		}

		must(t, w.WriteHeader(h))

		_, err := w.Write([]byte(e.text))
		must(t, err)
	}

	must(t, w.Close())

	return buf.Bytes()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()

	var buf bytes.Buffer

	w := gzip.NewWriter(&buf)
	_, err := w.Write(data)
	must(t, err)
	must(t, w.Close())

	return buf.Bytes()
}

func zipOf(t testing.TB, entries ...entry) []byte {
	t.Helper()

	var buf bytes.Buffer

	w := zip.NewWriter(&buf)

	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(0o644)

		if e.kind == tar.TypeSymlink {
			h.SetMode(os.ModeSymlink | 0o777)
		}

		f, err := w.CreateHeader(h)
		must(t, err)

		_, err = f.Write([]byte(e.text))
		must(t, err)
	}

	must(t, w.Close())

	return buf.Bytes()
}

func fetcher(t testing.TB, cfg pkgsource.Config) *pkgsource.Fetcher {
	t.Helper()

	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}

	if cfg.Backoff == 0 {
		cfg.Backoff = time.Millisecond
	}

	cfg.AllowPrivate = true

	f, err := pkgsource.New(cfg)
	must(t, err)

	return f
}

func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()

	s := httptest.NewServer(h)
	t.Cleanup(s.Close)

	return s.URL
}

func bytesOf(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data)
	}
}

func TestArchivesOfEveryKind(t *testing.T) {
	t.Parallel()

	flat := []entry{{name: "config.json", text: "{}"}, {name: "sub/weights.bin", text: "w"}}
	folder := []entry{{name: "digits/", kind: tar.TypeDir}, {name: "digits/config.json", text: "{}"}, {name: "digits/sub/weights.bin", text: "w"}}
	model := []entry{{name: "train.log", text: "x"}, {name: "model/config.json", text: "{}"}, {name: "model/sub/weights.bin", text: "w"}}
	deep := []entry{{name: "./ocr/model/config.json", text: "{}"}, {name: "./ocr/model/sub/weights.bin", text: "w"}, {name: "./ocr/log", text: "l"}}

	cases := map[string][]byte{
		"package.tar":     tarOf(t, flat...),
		"package.tar.gz":  gzipped(t, tarOf(t, folder...)),
		"package.tgz":     gzipped(t, tarOf(t, model...)),
		"package.zip":     zipOf(t, deep...),
		"download?id=7&x": gzipped(t, tarOf(t, append([]entry{{kind: tar.TypeXGlobalHeader}}, flat...)...)),
		"lying.zip":       tarOf(t, flat...),
		"mac.zip":         zipOf(t, append(folder[1:], entry{name: "__MACOSX/._x", text: "y"})...),
	}

	for name, data := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			sum := sha256.Sum256(data)
			url := serve(t, bytesOf(data)) + "/" + name + "#sha256=" + hex.EncodeToString(sum[:])

			var done, total int64

			dir, err := fetcher(t, pkgsource.Config{}).Fetch(t.Context(), "m1", url, func(d, n int64) { done, total = d, n })
			must(t, err)

			if got := read(t, dir, "config.json") + read(t, dir, "sub/weights.bin"); got != "{}w" {
				t.Fatalf("got %q", got)
			}

			if done != int64(len(data)) || total != done {
				t.Fatalf("progress %d of %d, want %d", done, total, len(data))
			}
		})
	}
}

func TestLoneModel(t *testing.T) {
	t.Parallel()

	dir, err := fetcher(t, pkgsource.Config{}).Fetch(t.Context(), "m1", serve(t, bytesOf([]byte("weights")))+"/digits.onnx", nil)
	must(t, err)

	if got := read(t, dir, "model.onnx"); got != "weights" {
		t.Fatalf("got %q", got)
	}
}

func TestHostileArchives(t *testing.T) {
	t.Parallel()

	zeros := strings.Repeat("\x00", 1<<20)
	good := entry{name: "config.json", text: "{}"}
	many := func(n int) (all []entry) {
		for i := range n {
			all = append(all, entry{name: fmt.Sprint("f", i), text: "x"})
		}

		return all
	}

	cases := map[string]struct {
		data []byte
		want string
	}{
		"escape":           {tarOf(t, entry{name: "../evil", text: "x"}), "leads out"},
		"escape inside":    {tarOf(t, entry{name: "a/../../evil", text: "x"}), "leads out"},
		"escape in zip":    {zipOf(t, entry{name: "../evil", text: "x"}), "leads out"},
		"absolute":         {tarOf(t, entry{name: "/etc/evil", text: "x"}), "absolute"},
		"absolute in zip":  {zipOf(t, entry{name: "/etc/evil", text: "x"}), "absolute"},
		"drive":            {zipOf(t, entry{name: "C:/evil", text: "x"}), "absolute"},
		"backslash":        {zipOf(t, entry{name: `..\evil`, text: "x"}), "backslash"},
		"symlink":          {tarOf(t, entry{name: "l", kind: tar.TypeSymlink, link: "/etc"}), "neither a file"},
		"symlink in zip":   {zipOf(t, entry{name: "l", kind: tar.TypeSymlink, text: "/etc"}), "neither a file"},
		"hard link":        {tarOf(t, good, entry{name: "l", kind: tar.TypeLink, link: "config.json"}), "neither a file"},
		"device":           {tarOf(t, entry{name: "d", kind: tar.TypeChar}), "neither a file"},
		"pipe":             {tarOf(t, entry{name: "p", kind: tar.TypeFifo}), "neither a file"},
		"twice":            {tarOf(t, good, good), "twice"},
		"twice, spelt":     {tarOf(t, good, entry{name: "./config.json", text: "[]"}), "twice"},
		"twice in zip":     {zipOf(t, good, good), "twice"},
		"file as folder":   {tarOf(t, entry{name: "a", text: "x"}, entry{name: "a/b", text: "x"}), "same name"},
		"folder as file":   {tarOf(t, entry{name: "a/b", text: "x"}, entry{name: "a", text: "x"}), "same name"},
		"line feed":        {tarOf(t, entry{name: "a\nb", text: "x"}), "not readable"},
		"too deep":         {tarOf(t, entry{name: strings.Repeat("a/", 40) + "b", text: "x"}), "too deep"},
		"long part":        {tarOf(t, entry{name: strings.Repeat("a", 256), text: "x"}), "too long"},
		"many":             {tarOf(t, many(60)...), "more than 50 entries"},
		"many in zip":      {zipOf(t, many(60)...), "more than 50 entries"},
		"many folders":     {tarOf(t, entry{name: strings.Repeat("a/", 30) + "b"}, entry{name: "c" + strings.Repeat("/a", 30)}), "more than 50 entries"},
		"bomb":             {gzipped(t, tarOf(t, entry{name: "z", text: zeros}, entry{name: "y", text: zeros})), "unpacks to more"},
		"zip bomb":         {zipOf(t, entry{name: "z", text: zeros}, entry{name: "y", text: zeros}), "unpacks to more"},
		"lying zip":        {understated(t), ""},
		"overlapping zip":  {overlapping(t, zeros[:1<<18], 40), "unpacks to more"},
		"sparse":           {sparse(1 << 40), "unpacks to more"},
		"sparse, old":      {sparseOld(1 << 40), "neither a file"},
		"heads only":       {gzipped(t, bytes.Repeat(rawHead("h", 9, tar.TypeXHeader, "9 path=a\n"), 19<<10)), "unpacks to more"},
		"many notes":       {tarOf(t, slices.Repeat([]entry{{kind: tar.TypeXGlobalHeader}}, 60)...), "more than 50 entries"},
		"not an archive":   {[]byte("<html>log in</html>"), "not an archive"},
		"empty":            {nil, "not an archive"},
		"gzip of text":     {gzipped(t, []byte(strings.Repeat("text ", 300))), "damaged"},
		"cut gzip":         {cutBy(gzipped(t, tarOf(t, good)), 20), "cut off"},
		"cut tar":          {cutBy(tarOf(t, good), 1024), "cut off"},
		"gzip checksum":    {flip(gzipped(t, tarOf(t, good)), -6), "damaged"},
		"zip checksum":     {flip(stored(t), 40), "damaged"},
		"zip without end":  {cutBy(zipOf(t, good), 10), "damaged"},
		"zip with nothing": {[]byte("PK\x03\x04nothing"), "damaged"},
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			root := t.TempDir()
			f := fetcher(t, pkgsource.Config{Dir: filepath.Join(root, "a", "b"), MaxBytes: 1<<20 + 10_000, MaxFiles: 50})

			_, err := f.Fetch(t.Context(), "m1", serve(t, bytesOf(tc.data))+"/p.tar", nil)
			if !errors.Is(err, &fault.Error{Code: fault.ModelInvalid}) || !strings.Contains(fault.From(err).Message(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}

			must(t, f.Discard("m1"))
			onlyDirs(t, root)
		})
	}
}

// rawHead is a header, with what follows it, as no library would write it.
func rawHead(name string, size int64, kind byte, text string) []byte {
	b := make([]byte, 512, 1024)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00"+fmt.Sprintf("%011o\x00%011o\x00", size, 0)+"        ")
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	stamp(b)

	text += strings.Repeat("\x00", (512-len(text)%512)%512)

	return append(b, text...)
}

// stamp puts the checksum into a header.
func stamp(b []byte) {
	copy(b[148:], "        ")

	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}

	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// sparse is an archive of one file that is a hole of a size, by the records of POSIX.
func sparse(size int64) []byte {
	var records strings.Builder

	for _, kv := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=model.onnx", fmt.Sprint("GNU.sparse.realsize=", size)} {
		n := len(kv) + 2
		n += len(strconv.Itoa(n + 2))
		fmt.Fprintf(&records, "%d %s\n", n, kv)
	}

	data := rawHead("h", int64(records.Len()), tar.TypeXHeader, records.String())
	data = append(data, rawHead("GNUSparseFile.0/model.onnx", 512, tar.TypeReg, "0\n")...)

	return append(data, make([]byte, 1024)...)
}

// sparseOld is sparse by GNU's own kind of entry.
func sparseOld(size int64) []byte {
	b := rawHead("model.onnx", 0, tar.TypeGNUSparse, "")
	copy(b[257:], "ustar  \x00")
	copy(b[483:], fmt.Sprintf("%011o", size>>3)) // as large as eleven digits can say
	stamp(b)

	return append(b, make([]byte, 1024)...)
}

// overlapping is a zip archive whose entries all have the same bytes.
func overlapping(t *testing.T, text string, n int) []byte {
	t.Helper()

	data := zipOf(t, entry{name: "f00", text: text})
	index, end := bytes.Index(data, []byte("PK\x01\x02")), bytes.Index(data, []byte("PK\x05\x06"))
	line, tail := data[index:end], bytes.Clone(data[end:])
	out := bytes.Clone(data[:index])

	for i := range n {
		one := bytes.Clone(line)
		copy(one[46:], fmt.Sprintf("f%02d", i))
		out = append(out, one...)
	}

	binary.LittleEndian.PutUint16(tail[8:], uint16(n))
	binary.LittleEndian.PutUint16(tail[10:], uint16(n))
	binary.LittleEndian.PutUint32(tail[12:], uint32(n*len(line)))

	return append(out, tail...)
}

// understated is a zip archive whose entry is larger than its index says.
func understated(t *testing.T) []byte {
	t.Helper()

	data := zipOf(t, entry{name: "a", text: strings.Repeat("x", 5000)})
	at := bytes.Index(data, []byte("PK\x01\x02"))
	copy(data[at+24:], []byte{10, 0, 0, 0})

	return data
}

func stored(t *testing.T) []byte {
	t.Helper()

	var buf bytes.Buffer

	w := zip.NewWriter(&buf)
	f, err := w.CreateHeader(&zip.FileHeader{Name: "config.json", Method: zip.Store})
	must(t, err)

	_, err = f.Write(bytes.Repeat([]byte("x"), 100))
	must(t, err)
	must(t, w.Close())

	return buf.Bytes()
}

func cutBy(data []byte, n int) []byte { return data[:len(data)-n] }

func flip(data []byte, at int) []byte {
	if at < 0 {
		at += len(data)
	} else {
		at = bytes.Index(data, []byte("xxx")) + at
	}

	data[at] ^= 0x55

	return data
}

// flaky breaks every connection after some bytes, and can do what servers do about ranges.
type flaky struct {
	data    []byte
	step    int
	ranges  bool
	etag    func(n int64) string
	served  atomic.Int64
	sent    atomic.Int64
	partial atomic.Int64
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := f.served.Add(1)

	etag := `"e"`
	if f.etag != nil {
		etag = f.etag(n)
	}

	start := 0

	if f.ranges && r.Header.Get("If-Range") == etag {
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start); err == nil {
			f.partial.Add(1)
		}
	}

	w.Header().Set("ETag", etag)
	w.Header().Set("Content-Length", strconv.Itoa(len(f.data)-start))

	if start > 0 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(f.data)-1, len(f.data)))
		w.WriteHeader(http.StatusPartialContent)
	}

	end := min(len(f.data), start+f.step)
	_, _ = w.Write(f.data[start:end])
	f.sent.Add(int64(end - start))

	if end < len(f.data) {
		_ = http.NewResponseController(w).Flush()

		panic(http.ErrAbortHandler)
	}
}

func random(n int) string {
	b := make([]byte, n)
	x := uint32(1)

	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}

	return string(b)
}

func TestResumesAfterBreaks(t *testing.T) {
	t.Parallel()

	data := tarOf(t, entry{name: "config.json", text: "{}"}, entry{name: "w", text: random(900_000)})
	s := &flaky{data: data, step: 200_000, ranges: true}

	dir, err := fetcher(t, pkgsource.Config{}).Fetch(t.Context(), "m1", serve(t, s.ServeHTTP)+"/p.tar", nil)
	must(t, err)

	if read(t, dir, "w") != random(900_000) {
		t.Fatal("the file came damaged")
	}

	if s.partial.Load() < 4 || s.sent.Load() != int64(len(data)) {
		t.Fatalf("%d resumed requests, %d bytes sent for %d", s.partial.Load(), s.sent.Load(), len(data))
	}
}

func TestRestartsWhenTheServerDoesNotResume(t *testing.T) {
	t.Parallel()

	data := tarOf(t, entry{name: "config.json", text: "{}"}, entry{name: "w", text: random(100_000)})
	s := &flaky{data: data, step: 60_000}

	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if s.served.Load() == 2 {
			s.step = len(data)
		}

		s.ServeHTTP(w, r)
	})

	dir, err := fetcher(t, pkgsource.Config{}).Fetch(t.Context(), "m1", url+"/p.tar", nil)
	must(t, err)

	if read(t, dir, "w") != random(100_000) {
		t.Fatal("the file came damaged")
	}
}

func TestNeverMixesTwoFiles(t *testing.T) {
	t.Parallel()

	old := tarOf(t, entry{name: "config.json", text: "{}"}, entry{name: "w", text: strings.Repeat("o", 100_000)})
	fresh := tarOf(t, entry{name: "config.json", text: "{}"}, entry{name: "w", text: strings.Repeat("n", 100_000)})

	for name, lie := range map[string]bool{"honest": false, "206 of another file": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var n atomic.Int64

			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) == 1 {
					(&flaky{data: old, step: 50_000}).ServeHTTP(w, r)
				}

				if at := r.Header.Get("Range"); lie && at != "" {
					w.Header().Set("ETag", `"new"`)
					w.Header().Set("Content-Range", fmt.Sprintf("bytes 50000-%d/%d", len(fresh)-1, len(fresh)))
					w.WriteHeader(http.StatusPartialContent)
					_, _ = w.Write(fresh[50_000:])

					return
				}

				(&flaky{data: fresh, step: len(fresh), etag: func(int64) string { return `"new"` }}).ServeHTTP(w, r)
			})

			dir, err := fetcher(t, pkgsource.Config{}).Fetch(t.Context(), "m1", url+"/p.tar", nil)
			must(t, err)

			if read(t, dir, "w") != strings.Repeat("n", 100_000) {
				t.Fatal("two files were mixed")
			}
		})
	}
}

func TestGoesOnAfterARestart(t *testing.T) {
	t.Parallel()

	data := tarOf(t, entry{name: "config.json", text: "{}"}, entry{name: "w", text: random(600_000)})
	dir := t.TempDir()

	ctx, cancel := context.WithCancel(t.Context())

	var mu sync.Mutex

	var starts []string

	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		starts = append(starts, r.Header.Get("Range"))
		first := len(starts) == 1
		mu.Unlock()

		w.Header().Set("ETag", `"e"`)

		if !first {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))

			return
		}

		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:300_000])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}) + "/p.tar"

	_, err := fetcher(t, pkgsource.Config{Dir: dir}).Fetch(ctx, "m1", url, func(done, _ int64) {
		if done == 300_000 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}

	got, err := fetcher(t, pkgsource.Config{Dir: dir}).Fetch(t.Context(), "m1", url, nil)
	must(t, err)

	if read(t, got, "w") != random(600_000) || len(starts) != 2 || starts[1] != "bytes=300000-" {
		t.Fatalf("requests began at %q", starts)
	}
}

func TestFaultsNameWhatIsWrong(t *testing.T) {
	t.Parallel()

	good := tarOf(t, entry{name: "config.json", text: "{}"})
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}

	cases := map[string]struct {
		h      http.HandlerFunc
		suffix string
		code   fault.Code
		want   string
	}{
		"missing":   {status(404), "", fault.ModelInvalid, "does not exist (404"},
		"forbidden": {status(403), "", fault.ModelInvalid, "may not be read (403"},
		"odd":       {status(418), "", fault.ModelInvalid, "418"},
		"broken":    {status(503), "", fault.Unavailable, "answers 503"},
		"hash":      {bytesOf(good), "#sha256=" + strings.Repeat("0", 64), fault.ModelInvalid, "SHA-256"},
		"too large": {bytesOf(make([]byte, 200_000)), "", fault.ModelInvalid, "larger than 100000 bytes"},
		"too large, unsaid": {func(w http.ResponseWriter, _ *http.Request) {
			for range 10 {
				_, _ = w.Write(make([]byte, 50_000))
				_ = http.NewResponseController(w).Flush()
			}
		}, "", fault.ModelInvalid, "larger than 100000 bytes"},
		"silent": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "", fault.Unavailable, "nothing"},
		"stops": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(good)))
			_, _ = w.Write(good[:100])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "", fault.Unavailable, "sent nothing"},
		"loop": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) }, "", fault.ModelInvalid, "more than 5 redirects"},
		"to a file": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
		}, "", fault.ModelInvalid, "not http or https"},
		"to metadata": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
		}, "", fault.ModelInvalid, "not permitted"},
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			f := fetcher(t, pkgsource.Config{MaxBytes: 100_000, Retries: 2, IdleTimeout: 150 * time.Millisecond})

			_, err := f.Fetch(t.Context(), "m1", serve(t, tc.h)+"/p.tar?token=s3cret"+tc.suffix, nil)
			if !errors.Is(err, &fault.Error{Code: tc.code}) || !strings.Contains(fault.From(err).Message(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}

			if strings.Contains(err.Error(), "s3cret") {
				t.Fatalf("the error tells a secret: %v", err)
			}
		})
	}
}

func TestRedirectFromHTTPSToHTTPIsRefused(t *testing.T) {
	t.Parallel()

	plain := serve(t, bytesOf(tarOf(t, entry{name: "config.json", text: "{}"})))

	check := func(from, to string, refused bool) {
		req := httptest.NewRequest(http.MethodGet, to, nil)
		via := httptest.NewRequest(http.MethodGet, from, nil)

		if err := pkgsource.CheckRedirect(req, []*http.Request{via}); (err != nil) != refused {
			t.Errorf("%s to %s: %v", from, to, err)
		}
	}

	check("https://a.example/x", plain, true)
	check("https://a.example/x", "https://b.example/", false)
	check("http://a.example/x", "https://b.example/", false)
	check("http://a.example/x", "http://u:p@b.example/", true)
}

func TestWaitsAndTriesAgain(t *testing.T) {
	t.Parallel()

	var n atomic.Int64

	data := tarOf(t, entry{name: "config.json", text: "{}"})
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) < 4 {
			w.WriteHeader(http.StatusServiceUnavailable)

			return
		}

		_, _ = w.Write(data)
	})

	_, err := fetcher(t, pkgsource.Config{}).Fetch(t.Context(), "m1", url+"/p.tar", nil)
	must(t, err)

	if n.Load() != 4 {
		t.Fatalf("%d requests", n.Load())
	}
}

func TestTotalTimeIsBounded(t *testing.T) {
	t.Parallel()

	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()

			select {
			case <-time.After(5 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
	})

	_, err := fetcher(t, pkgsource.Config{Timeout: 200 * time.Millisecond}).Fetch(t.Context(), "m1", url+"/p.tar", nil)
	if !errors.Is(err, &fault.Error{Code: fault.Unavailable}) || !strings.Contains(err.Error(), "took too long") {
		t.Fatalf("got %v", err)
	}
}

func TestPrivateAddressesAreRefused(t *testing.T) {
	t.Parallel()

	var asked atomic.Bool

	url := serve(t, func(http.ResponseWriter, *http.Request) { asked.Store(true) })

	f, err := pkgsource.New(pkgsource.Config{Dir: t.TempDir()})
	must(t, err)

	for _, u := range []string{url, strings.Replace(url, "127.0.0.1", "localhost", 1)} {
		_, err := f.Fetch(t.Context(), "m1", u+"/p.tar", nil)
		if !errors.Is(err, &fault.Error{Code: fault.ModelInvalid}) || !strings.Contains(err.Error(), "allow_private") {
			t.Fatalf("got %v", err)
		}
	}

	if asked.Load() {
		t.Fatal("the server was asked")
	}
}

func TestLocations(t *testing.T) {
	t.Parallel()

	f := fetcher(t, pkgsource.Config{})

	for _, bad := range []string{
		"http://", "http:///x", "http://u:p@h/x", "http://h/x#sha256=12", "http://h/x#part", "ftp://h/x", "http://h/%zz",
		"https://h/" + strings.Repeat("x", 5000), "s3://bucket/x?y=1", "s3://UPPER/x", "s3://a/x", "s3://a..b/x", "obs:///x", "s3://bucket/prefix",
	} {
		if err := f.Check(bad); !errors.Is(err, &fault.Error{Code: fault.ModelInvalid}) {
			t.Errorf("%s: %v", bad, err)
		}
	}

	withS3 := fetcher(t, pkgsource.Config{S3: pkgsource.S3Config{Endpoint: "http://127.0.0.1:1"}})
	for _, good := range []string{
		"http://h/x.tar", "https://bucket.obs.region.example/prefix", "HTTPS://h/x?sig=1#sha256=" + strings.Repeat("aF", 32), "s3://bucket", "obs://my-bucket/a/b/",
	} {
		if err := withS3.Check(good); err != nil || !pkgsource.Remote(good) {
			t.Errorf("%s: %v", good, err)
		}
	}

	for _, local := range []string{"/models/x", "file:///x", "", "://"} {
		if pkgsource.Remote(local) {
			t.Errorf("%q is remote", local)
		}
	}
}

func TestCleanAndKeys(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	f := fetcher(t, pkgsource.Config{Dir: dir})
	must(t, os.MkdirAll(filepath.Join(dir, "old", "tree"), 0o700))
	must(t, os.MkdirAll(filepath.Join(dir, "new"), 0o700))
	must(t, f.Clean(func(key string) bool { return key == "new" }))

	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != "new" {
		t.Fatalf("left %v, %v", entries, err)
	}

	for _, bad := range []string{"", ".", "..", "a/b", "../x"} {
		if err := f.Discard(bad); err == nil {
			t.Errorf("discarded %q", bad)
		}
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()

	data, err := os.ReadFile(filepath.Join(dir, name))
	must(t, err)

	return string(data)
}

// onlyDirs checks that nothing was written outside of what was discarded.
func onlyDirs(t *testing.T, root string) {
	t.Helper()

	must(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("left behind: %s", path)
		}

		return err
	}))
}

func must(t testing.TB, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}
