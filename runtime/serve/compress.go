package serve

import (
	"bytes"
	"compress/zlib"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	kzlib "github.com/klauspost/compress/zlib"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// zips are the pooled compressors of an App.
type zips struct{ gzip, zlib, readers sync.Pool }

// open decompresses the body under POST /.
func (a *App) open(x *Exchange) error {
	if enc := x.Header.Get("Content-Encoding"); len(enc) > 0 {
		return a.inflate(x, strings.ToLower(string(enc)))
	}

	return nil
}

// openV2 does the same, with the status and header that Triton's clients know for a foreign encoding.
func (a *App) openV2(x *Exchange) error {
	err := a.open(x)
	if err == nil {
		return nil
	}

	var f *fault.Error
	if errors.As(err, &f) && f.Code == fault.BadEncoding {
		x.add("Accept-Encoding", "gzip, deflate")

		return &statusError{f, fault.NotImplemented.Status()}
	}

	return err
}

// inflate replaces the body by what it decompresses to, within the limit for bodies.
func (a *App) inflate(x *Exchange, encoding string) error {
	var (
		r   io.Reader
		err error
	)

	switch encoding {
	case "identity":
		return nil
	case "gzip", "x-gzip":
		r, err = a.gunzip(x.Body)
	case "deflate":
		r, err = zlib.NewReader(bytes.NewReader(x.Body))
	default:
		return fault.New(fault.BadEncoding, "The content encoding %q is not supported; use gzip or deflate.", clip(encoding))
	}

	if err != nil {
		return fault.Wrap(fault.InvalidArgument, err, "The body is not valid %s.", encoding)
	}

	var out bytes.Buffer

	n, err := out.ReadFrom(io.LimitReader(r, a.cfg.MaxBody+1))
	if z, ok := r.(*gzip.Reader); ok {
		a.zips.readers.Put(z)
	}

	if n > a.cfg.MaxBody {
		return fault.New(fault.BodyTooLarge, "The body decompresses to more than %d bytes.", a.cfg.MaxBody)
	}

	if err != nil {
		return fault.Wrap(fault.InvalidArgument, err, "The body is not valid %s.", encoding)
	}

	x.Body = out.Bytes()
	x.TakeBody = func([]byte) []byte { return out.Bytes() }

	return nil
}

func (a *App) gunzip(body []byte) (io.Reader, error) {
	if z, ok := a.zips.readers.Get().(*gzip.Reader); ok {
		return z, z.Reset(bytes.NewReader(body)) //nolint:wrapcheck // wrapped by the caller
	}

	return gzip.NewReader(bytes.NewReader(body)) //nolint:wrapcheck // wrapped by the caller
}

// compress compresses an answer of least bytes or more if the client prefers that.
func (a *App) compress(x *Exchange, least int) {
	accept := x.Header.Get("Accept-Encoding")
	if len(accept) == 0 || len(x.Out) < least {
		return
	}

	encoding := choose(string(accept))
	if encoding == "" {
		return
	}

	var out bytes.Buffer

	out.Grow(len(x.Out)/2 + 64)

	if a.deflate(&out, encoding, x.Out) != nil {
		return // send it as it is
	}

	x.Out = append(x.Out[:0], out.Bytes()...)
	x.add("Content-Encoding", encoding)
	x.add("Vary", "Accept-Encoding")
}

func (a *App) deflate(out *bytes.Buffer, encoding string, body []byte) error {
	if encoding == "gzip" {
		z, ok := a.zips.gzip.Get().(*gzip.Writer)
		if !ok {
			z, _ = gzip.NewWriterLevel(out, gzip.BestSpeed)
		}
		defer a.zips.gzip.Put(z)

		z.Reset(out)

		_, err := z.Write(body)

		return errors.Join(err, z.Close())
	}

	z, ok := a.zips.zlib.Get().(*kzlib.Writer)
	if !ok {
		z, _ = kzlib.NewWriterLevel(out, kzlib.BestSpeed)
	}
	defer a.zips.zlib.Put(z)

	z.Reset(out)

	_, err := z.Write(body)

	return errors.Join(err, z.Close())
}

// choose picks gzip, deflate or "" (identity) by the weights of an Accept-Encoding header.
func choose(accept string) string {
	best, weight := "", 0.0
	identity := -1.0

	for item := range strings.SplitSeq(accept, ",") {
		name, params, _ := strings.Cut(item, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		q := quality(params)

		switch name {
		case "identity":
			identity = q
		case "gzip", "deflate":
			if q > weight || (q == weight && name == "gzip" && q > 0) {
				best, weight = name, q
			}
		case "*":
			if best == "" && q > 0 {
				best, weight = "gzip", q
			}
		}
	}

	if identity > weight {
		return ""
	}

	return best
}

func quality(params string) float64 {
	value, ok := strings.CutPrefix(strings.TrimSpace(params), "q=")
	if !ok {
		return 1
	}

	q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
	if err != nil || q < 0 || q > 1 {
		return 0
	}

	return q
}
