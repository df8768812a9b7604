package rpc

import (
	"compress/zlib"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc/encoding"
)

// The gRPC library knows gzip only; clients of Triton also ask for deflate, which is zlib's format.
func init() { //nolint:gochecknoinits // the library wants codecs registered before any server runs
	encoding.RegisterCompressor(&deflate{})
}

// deflate is safe for concurrent use. The library bounds what it reads from Decompress.
type deflate struct{ writers sync.Pool }

// Name is the message encoding.
func (*deflate) Name() string { return "deflate" }

// Compress returns a writer that compresses to w until it is closed.
func (d *deflate) Compress(w io.Writer) (io.WriteCloser, error) {
	z, ok := d.writers.Get().(*zlib.Writer)
	if !ok {
		z, _ = zlib.NewWriterLevel(w, zlib.BestSpeed)
	}

	z.Reset(w)

	return &pooled{z, d}, nil
}

// pooled gives its compressor back when it is closed.
type pooled struct {
	*zlib.Writer

	owner *deflate
}

// Close implements io.Closer.
func (p *pooled) Close() error {
	defer p.owner.writers.Put(p.Writer)

	if err := p.Writer.Close(); err != nil {
		return fmt.Errorf("deflate: %w", err)
	}

	return nil
}

// Decompress returns a reader of what r holds compressed.
func (*deflate) Decompress(r io.Reader) (io.Reader, error) {
	z, err := zlib.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("inflate: %w", err)
	}

	return z, nil
}
