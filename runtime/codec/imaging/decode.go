package imaging

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"

	"golang.org/x/image/webp"
	"golang.org/x/sync/semaphore"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// DefaultMaxPixels is the pixel limit when a package sets none.
const DefaultMaxPixels = 25_000_000

// maxScans bounds the passes of a progressive JPEG; each makes the decoder visit every block.
const maxScans = 200

// Gate bounds the memory of pictures being decoded.
type Gate struct {
	sem   *semaphore.Weighted
	bytes int64
}

// NewGate returns a gate for so many bytes of decoded pictures; one picture larger than that passes alone.
func NewGate(size int64) *Gate {
	return &Gate{sem: semaphore.NewWeighted(size), bytes: size}
}

// enter waits for room and returns what gives it back.
func (g *Gate) enter(ctx context.Context, need int64) (func(), error) {
	need = min(need, g.bytes)
	if err := g.sem.Acquire(ctx, need); err != nil {
		return nil, fmt.Errorf("wait to decode a picture: %w", err)
	}

	return func() { g.sem.Release(need) }, nil
}

type format struct {
	name   string
	config func([]byte) (image.Config, error)
	decode func([]byte) (image.Image, error)
	// bytes per pixel that decoding may take.
	cost int64
}

// sniff finds the format by its first bytes.
func sniff(b []byte) (format, error) {
	switch {
	case bytes.HasPrefix(b, []byte("\x89PNG\r\n\x1a\n")):
		return format{
			name: "PNG", cost: 8,
			config: func(b []byte) (image.Config, error) { return png.DecodeConfig(bytes.NewReader(b)) },
			decode: func(b []byte) (image.Image, error) { return png.Decode(bytes.NewReader(b)) },
		}, nil
	case bytes.HasPrefix(b, []byte("\xff\xd8\xff")):
		return format{
			name: "JPEG", cost: 16,
			config: func(b []byte) (image.Config, error) { return jpeg.DecodeConfig(bytes.NewReader(b)) },
			decode: func(b []byte) (image.Image, error) { return jpeg.Decode(bytes.NewReader(b)) },
		}, nil
	case len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP":
		return format{
			name: "WebP", cost: 8,
			config: func(b []byte) (image.Config, error) { return webp.DecodeConfig(bytes.NewReader(b)) },
			decode: func(b []byte) (image.Image, error) { return webp.Decode(bytes.NewReader(b)) },
		}, nil
	case len(b) == 0:
		return format{}, fault.New(fault.BadImage, "The image is empty.")
	default:
		return format{}, fault.New(fault.BadImage, "%s is not supported; send PNG, JPEG or WebP.", foreign(b))
	}
}

// foreign names well-known formats that are refused.
func foreign(b []byte) string {
	for _, k := range []struct{ magic, name string }{
		{"GIF8", "GIF"},
		{"BM", "BMP"},
		{"II*\x00", "TIFF"},
		{"MM\x00*", "TIFF"},
		{"%PDF", "PDF"},
		{"<svg", "SVG"},
		{"\x00\x00\x01\x00", "ICO"},
	} {
		if bytes.HasPrefix(b, []byte(k.magic)) {
			return "The image format " + k.name
		}
	}

	return "The image format"
}

// decode decodes a picture that was measured.
func decode(f format, b []byte) (image.Image, error) {
	img, err := f.decode(b)
	if err != nil {
		return nil, fault.Wrap(fault.BadImage, err, "The %s image cannot be decoded: %s.", f.name, reason(err))
	}

	return img, nil
}

// measure reads the size and refuses what is too large, before anything is decoded.
func measure(f format, b []byte, maxPixels int64) (image.Config, error) {
	cfg, err := f.config(b)
	if err != nil {
		return cfg, fault.Wrap(fault.BadImage, err, "The %s image cannot be decoded: %s.", f.name, reason(err))
	}

	if cfg.Width <= 0 || cfg.Height <= 0 {
		return cfg, fault.New(fault.BadImage, "The %s image has no pixels.", f.name)
	}

	if int64(cfg.Width) > maxPixels/int64(cfg.Height) {
		return cfg, fault.New(fault.ImageTooLarge, "The image has %d x %d pixels; the limit is %d pixels.",
			cfg.Width, cfg.Height, maxPixels)
	}

	if f.name == "JPEG" && bytes.Count(b, []byte{0xff, 0xda}) > maxScans {
		return cfg, fault.New(fault.BadImage, "The JPEG image has more than %d scans.", maxScans)
	}

	return cfg, nil
}

// reason is the decoder's text, which speaks of the picture only.
func reason(err error) string {
	const most = 120

	text := err.Error()
	if len(text) > most {
		text = text[:most]
	}

	return text
}
