package digits_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/image/draw"

	"github.com/sluice-gateway/sluice/internal/ortlib"
	"github.com/sluice-gateway/sluice/runtime/codec/imaging"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort"
	"github.com/sluice-gateway/sluice/spec"
)

const (
	pkg     = "../../configs/models/digits"
	side    = 8
	across  = 30
	promise = 0.95
)

// reader is the model with its pre-processing.
type reader struct {
	pipeline *imaging.Pipeline
	session  engine.Session
	labels   []string
}

func newReader(t *testing.T) *reader {
	t.Helper()

	cfg, err := spec.ParsePackageConfig(file(t, "config.json"))
	if err != nil {
		t.Fatal(err)
	}

	pipeline, err := imaging.New(*cfg.Serving.Preprocess[0].Image, engine.FP32, 0, imaging.NewGate(1<<28))
	if err != nil {
		t.Fatal(err)
	}

	library, err := ortlib.Find()
	if err != nil {
		t.Fatal(err)
	}

	eng, err := ort.New(ort.Config{Library: library}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	session, err := eng.Load(t.Context(), engine.LoadSpec{Path: filepath.Join(pkg, cfg.Serving.ModelFile)})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := session.Close(); err != nil {
			t.Error(err)
		}

		if err := eng.Close(); err != nil {
			t.Error(err)
		}
	})

	return &reader{pipeline: pipeline, session: session, labels: strings.Fields(string(file(t, cfg.Serving.LabelsFile)))}
}

// read returns the label of a picture.
func (r *reader) read(t *testing.T, picture []byte) string {
	t.Helper()

	row, err := r.pipeline.Append(t.Context(), nil, picture)
	if err != nil {
		t.Fatal(err)
	}

	in := engine.Tensor{Name: "image", Type: engine.FP32, Shape: append([]int64{1}, r.pipeline.Shape()...), Data: row}

	out, release, err := r.session.Run(t.Context(), []engine.Tensor{in}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()

	best, highest := 0, float32(math.Inf(-1))

	for i := range len(out[0].Data) / 4 {
		if v := math.Float32frombits(binary.LittleEndian.Uint32(out[0].Data[4*i:])); v > highest {
			best, highest = i, v
		}
	}

	return r.labels[best]
}

func file(t *testing.T, name string) []byte {
	t.Helper()

	data, err := os.ReadFile(filepath.Join(pkg, name))
	if err != nil {
		t.Fatal(err)
	}

	return data
}

// oddRows returns the digits that did not train, as grey pictures from black to white, and their labels.
func oddRows(t *testing.T) ([]*image.Gray, string) {
	t.Helper()

	decoded, err := png.Decode(bytes.NewReader(file(t, "testdata/odd-rows.png")))
	if err != nil {
		t.Fatal(err)
	}

	sheet, ok := decoded.(*image.Gray)
	if !ok {
		t.Fatalf("the sheet is a %T", decoded)
	}

	labels := strings.TrimSpace(string(file(t, "testdata/odd-rows.txt")))
	digits := make([]*image.Gray, len(labels))

	for i := range digits {
		digits[i] = image.NewGray(image.Rect(0, 0, side, side))

		for y := range side {
			for x := range side {
				v := sheet.GrayAt(side*(i%across)+x, side*(i/across)+y).Y
				digits[i].SetGray(x, y, color.Gray{Y: uint8(int(v) * 255 / 16)})
			}
		}
	}

	return digits, labels
}

// style is one way to make a picture file of a digit.
type style struct {
	name          string
	width, height int
	filter        draw.Interpolator
	light         bool
	encode        func(*image.Gray) ([]byte, error)
	every         int // take every nth row
}

func styles() []style {
	filters := map[string]draw.Interpolator{
		"nearest": draw.NearestNeighbor, "bilinear": draw.BiLinear, "bicubic": draw.CatmullRom, "approximate": draw.ApproxBiLinear,
	}

	var all []style

	for name, filter := range filters {
		for _, light := range []bool{false, true} {
			for _, size := range [][2]int{{8, 8}, {13, 11}, {28, 28}, {64, 40}} {
				all = append(all, style{name, size[0], size[1], filter, light, encodePNG, 16})
			}
		}
	}

	return append(all,
		style{"quality 50", 8, 8, draw.BiLinear, true, encodeJPEG(50), 4},
		style{"quality 50", 32, 32, draw.CatmullRom, false, encodeJPEG(50), 4},
		style{"quality 75", 64, 64, draw.BiLinear, true, encodeJPEG(75), 8},
		style{"quality 95", 20, 30, draw.CatmullRom, true, encodeJPEG(95), 8},
		style{"colour", 24, 24, draw.BiLinear, true, encodeRGBA, 8},
		style{"16 bits", 16, 16, draw.BiLinear, false, encodeDeep, 8},
		style{"palette", 40, 40, draw.CatmullRom, true, encodePalette, 8},
		style{"large", 4000, 4000, draw.NearestNeighbor, true, encodeJPEG(85), 300},
		style{"large and flat", 4000, 9, draw.CatmullRom, false, encodePNG, 40},
	)
}

func (s *style) make(digit *image.Gray) ([]byte, error) {
	out := image.NewGray(image.Rect(0, 0, s.width, s.height))
	s.filter.Scale(out, out.Bounds(), digit, digit.Bounds(), draw.Src, nil)

	if s.light {
		for i, v := range out.Pix {
			out.Pix[i] = 255 - v
		}
	}

	return s.encode(out)
}

func encodePNG(img *image.Gray) ([]byte, error) { return encodeImage(img) }

func encodeImage(img image.Image) ([]byte, error) {
	var buf bytes.Buffer

	if err := png.Encode(&buf, img); err != nil {
		return nil, fmt.Errorf("encode PNG: %w", err)
	}

	return buf.Bytes(), nil
}

func encodeJPEG(quality int) func(*image.Gray) ([]byte, error) {
	return func(img *image.Gray) ([]byte, error) {
		var buf bytes.Buffer

		if err := jpeg.Encode(&buf, img, &jpeg.Options{Quality: quality}); err != nil {
			return nil, fmt.Errorf("encode JPEG: %w", err)
		}

		return buf.Bytes(), nil
	}
}

func encodeRGBA(img *image.Gray) ([]byte, error) {
	out := image.NewNRGBA(img.Bounds())
	draw.Draw(out, out.Bounds(), img, image.Point{}, draw.Src)

	return encodeImage(out)
}

func encodeDeep(img *image.Gray) ([]byte, error) {
	out := image.NewGray16(img.Bounds())
	draw.Draw(out, out.Bounds(), img, image.Point{}, draw.Src)

	return encodeImage(out)
}

func encodePalette(img *image.Gray) ([]byte, error) {
	greys := make(color.Palette, 64)
	for i := range greys {
		greys[i] = color.Gray{Y: uint8(i * 255 / 63)}
	}

	out := image.NewPaletted(img.Bounds(), greys)
	draw.Draw(out, out.Bounds(), img, image.Point{}, draw.Src)

	return encodeImage(out)
}

// TestPicturesOfUnseenRowsComeOutRight holds the promise of the sample model: at least 95 % of
// the pictures of each style, whatever their size, filter, polarity and format.
func TestPicturesOfUnseenRowsComeOutRight(t *testing.T) {
	t.Parallel()

	r := newReader(t)
	digits, labels := oddRows(t)

	if len(digits) != 898 {
		t.Fatalf("%d rows", len(digits))
	}

	all, allRight := 0, 0

	for _, s := range styles() {
		name := fmt.Sprintf("%s %dx%d light=%v", s.name, s.width, s.height, s.light)
		seen, right := 0, 0

		for i := 1; i < len(digits); i += s.every {
			picture, err := s.make(digits[i])
			if err != nil {
				t.Fatal(err)
			}

			seen++

			if r.read(t, picture) == labels[i:i+1] {
				right++
			}
		}

		all, allRight = all+seen, allRight+right

		if float64(right) < promise*float64(seen) {
			t.Errorf("%s: %d of %d right", name, right, seen)
		}
	}

	t.Logf("%d of %d pictures right (%.2f %%)", allRight, all, 100*float64(allRight)/float64(all))
}

func TestSamplesComeOutRight(t *testing.T) {
	t.Parallel()

	r := newReader(t)

	for _, label := range r.labels {
		if got := r.read(t, file(t, "samples/"+label+".png")); got != label {
			t.Errorf("samples/%s.png is read as %s", label, got)
		}
	}
}
