package imaging_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/image/bmp"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec/imaging"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/spec"
)

func encode(tb testing.TB, img image.Image) []byte {
	tb.Helper()

	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		tb.Fatal(err)
	}

	return b.Bytes()
}

// gray makes a picture from rows of samples.
func gray(rows ...[]uint8) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, len(rows[0]), len(rows)))
	for y, row := range rows {
		copy(img.Pix[y*img.Stride:], row)
	}

	return img
}

func run(tb testing.TB, cfg spec.Image, picture []byte) []float64 {
	tb.Helper()

	if cfg.Scale == 0 {
		cfg.Scale = 1
	}

	p, err := imaging.New(cfg, engine.FP64, 0, imaging.NewGate(1<<30))
	if err != nil {
		tb.Fatal(err)
	}

	b, err := p.Append(tb.Context(), nil, picture)
	if err != nil {
		tb.Fatal(err)
	}

	out := make([]float64, len(b)/8)
	for i := range out {
		out[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}

	return out
}

func near(a, b []float64) bool {
	return slices.EqualFunc(a, b, func(x, y float64) bool { return math.Abs(x-y) < 1e-9 })
}

func TestStages(t *testing.T) {
	t.Parallel()

	ramp := encode(t, gray([]uint8{10, 20, 30, 40}, []uint8{50, 60, 70, 80}))

	half := image.NewNRGBA(image.Rect(0, 0, 2, 1))
	half.SetNRGBA(0, 0, color.NRGBA{R: 100, A: 51}) // a fifth
	half.SetNRGBA(1, 0, color.NRGBA{G: 200, A: 255})

	deep := image.NewGray16(image.Rect(0, 0, 2, 1))
	deep.SetGray16(0, 0, color.Gray16{Y: 257*7 + 100})
	deep.SetGray16(1, 0, color.Gray16{Y: 65535})

	// A white page with a dark 2x1 mark.
	page := gray([]uint8{250, 250, 250, 250, 250}, []uint8{250, 250, 20, 10, 250}, []uint8{250, 250, 250, 250, 250}, []uint8{250, 250, 250, 250, 250})

	for name, c := range map[string]struct {
		cfg     spec.Image
		picture []byte
		want    []float64
	}{
		"area shrink":     {spec.Image{Width: 2, Height: 1, Channels: 1}, ramp, []float64{35, 55}},
		"area fractions":  {spec.Image{Width: 3, Height: 1, Channels: 1}, ramp, []float64{32.5, 45, 57.5}},
		"area enlarge":    {spec.Image{Width: 8, Height: 2, Channels: 1}, ramp, []float64{10, 10, 20, 20, 30, 30, 40, 40, 50, 50, 60, 60, 70, 70, 80, 80}},
		"identity":        {spec.Image{Width: 4, Height: 2, Channels: 1}, ramp, []float64{10, 20, 30, 40, 50, 60, 70, 80}},
		"nearest":         {spec.Image{Width: 2, Height: 2, Channels: 1, Resize: "nearest"}, ramp, []float64{20, 40, 60, 80}},
		"cover":           {spec.Image{Width: 2, Height: 2, Channels: 1, Fit: "cover"}, ramp, []float64{20, 30, 60, 70}},
		"contain":         {spec.Image{Width: 4, Height: 4, Channels: 1, Fit: "contain"}, ramp, []float64{40, 40, 40, 40, 10, 20, 30, 40, 50, 60, 70, 80, 40, 40, 40, 40}},
		"invert":          {spec.Image{Width: 4, Height: 2, Channels: 1, Invert: "always"}, ramp, []float64{245, 235, 225, 215, 205, 195, 185, 175}},
		"auto invert":     {spec.Image{Width: 5, Height: 4, Channels: 1, Invert: "auto", Resize: "nearest"}, encode(t, page), []float64{5, 5, 5, 5, 5, 5, 5, 235, 245, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5}},
		"no auto invert":  {spec.Image{Width: 4, Height: 2, Channels: 1, Invert: "auto"}, ramp, []float64{10, 20, 30, 40, 50, 60, 70, 80}},
		"stretch":         {spec.Image{Width: 2, Height: 1, Channels: 1, StretchContrast: true}, ramp, []float64{0, 255}},
		"flat stretch":    {spec.Image{Width: 1, Height: 1, Channels: 1, StretchContrast: true}, ramp, []float64{0}},
		"center":          {spec.Image{Width: 2, Height: 2, Channels: 1, CenterContent: true}, encode(t, page), []float64{20, 10, 250, 250}},
		"center margin":   {spec.Image{Width: 4, Height: 4, Channels: 1, CenterContent: true, Margin: 0.5, Resize: "nearest"}, encode(t, page), []float64{250, 250, 250, 250, 250, 20, 10, 250, 250, 250, 250, 250, 250, 250, 250, 250}},
		"mean and std":    {spec.Image{Width: 2, Height: 1, Channels: 1, Scale: 0.1, Mean: []float64{1}, Std: []float64{2}}, ramp, []float64{1.25, 2.25}},
		"16 bit":          {spec.Image{Width: 2, Height: 1, Channels: 1}, encode(t, deep), []float64{7 + 100.0/257, 255}},
		"alpha on white":  {spec.Image{Width: 2, Height: 1, Channels: 3}, encode(t, half), []float64{224, 0, 204, 200, 204, 0}},
		"alpha on black":  {spec.Image{Width: 2, Height: 1, Channels: 3, Background: "black", Layout: "HWC"}, encode(t, half), []float64{20, 0, 0, 0, 200, 0}},
		"BGR flat":        {spec.Image{Width: 2, Height: 1, Channels: 3, Background: "black", Layout: "FLAT", BGR: true}, encode(t, half), []float64{0, 0, 20, 0, 200, 0}},
		"grey as colour":  {spec.Image{Width: 1, Height: 1, Channels: 3}, ramp, []float64{45, 45, 45}},
		"colour as grey":  {spec.Image{Width: 2, Height: 1, Channels: 1, Background: "black"}, encode(t, half), []float64{0.299 * 20, 0.587 * 200}},
		"mean by channel": {spec.Image{Width: 1, Height: 1, Channels: 3, Mean: []float64{1, 2, 3}}, ramp, []float64{44, 43, 42}},
	} {
		if got := run(t, c.cfg, c.picture); !near(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// reference resizes by the definition of the kernels, pixel by pixel.
func reference(src *image.Gray, w, h int, method string) []float64 {
	weight := func(n, m, i, j int) float64 {
		scale := float64(n) / float64(m)
		wide := max(1, scale)
		x := math.Abs((float64(j) + 0.5 - (float64(i)+0.5)*scale) / wide)

		switch method {
		case "area":
			lo, hi := float64(i)*scale, float64(i+1)*scale

			return max(0, min(hi, float64(j+1))-max(lo, float64(j)))
		case "bilinear":
			return max(0, 1-x)
		default:
			if x < 1 {
				return 1.5*x*x*x - 2.5*x*x + 1
			}

			if x < 2 {
				return -0.5*x*x*x + 2.5*x*x - 4*x + 2
			}

			return 0
		}
	}

	b := src.Bounds()

	out := make([]float64, 0, w*h)

	for y := range h {
		for x := range w {
			var sum, total float64

			for sy := range b.Dy() {
				for sx := range b.Dx() {
					k := weight(b.Dx(), w, x, sx) * weight(b.Dy(), h, y, sy)
					sum += k * float64(src.GrayAt(sx, sy).Y)
					total += k
				}
			}

			out = append(out, sum/total)
		}
	}

	return out
}

func TestResizeAgreesWithTheDefinition(t *testing.T) {
	t.Parallel()

	r := rand.New(rand.NewPCG(1, 1))

	for range 60 {
		src := image.NewGray(image.Rect(0, 0, 1+r.IntN(40), 1+r.IntN(40)))
		for i := range src.Pix {
			src.Pix[i] = uint8(r.Uint32())
		}

		w, h := 1+r.IntN(20), 1+r.IntN(20)

		for _, method := range []string{"area", "bilinear", "bicubic"} {
			got := run(t, spec.Image{Width: w, Height: h, Channels: 1, Resize: method}, encode(t, src))
			want := reference(src, w, h, method)

			for i := range got {
				if math.Abs(got[i]-want[i]) > 1e-6 {
					t.Fatalf("%s %v -> %dx%d: pixel %d is %g, want %g", method, src.Bounds().Max, w, h, i, got[i], want[i])
				}
			}
		}
	}
}

// withOrientation puts an EXIF segment into a JPEG.
func withOrientation(jpg []byte, order binary.AppendByteOrder, magic string, value uint16) []byte {
	tiff := []byte(magic)
	tiff = order.AppendUint32(tiff, 8)
	tiff = order.AppendUint16(tiff, 2)
	tiff = append(order.AppendUint32(order.AppendUint16(order.AppendUint16(tiff, 0x0100), 4), 1), 9, 9, 9, 9)
	tiff = order.AppendUint32(order.AppendUint16(order.AppendUint16(tiff, 0x0112), 3), 1)
	tiff = append(order.AppendUint16(tiff, value), 0, 0)

	seg := append([]byte("Exif\x00\x00"), tiff...)
	out := append([]byte{0xff, 0xd8, 0xff, 0xe1}, byte((len(seg)+2)>>8), byte(len(seg)+2))

	return append(append(out, seg...), jpg[2:]...)
}

func TestOrientation(t *testing.T) {
	t.Parallel()

	// Corners: dark, middle, bright, middle-bright, large enough for JPEG to keep them.
	img := image.NewGray(image.Rect(0, 0, 32, 16))
	for y := range 16 {
		for x := range 32 {
			img.SetGray(x, y, color.Gray{Y: [4]uint8{0, 80, 160, 240}[x/16+y/8*2]})
		}
	}

	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 100}); err != nil {
		t.Fatal(err)
	}

	for value, want := range map[uint16][4]float64{
		1: {0, 80, 160, 240}, 2: {80, 0, 240, 160}, 3: {240, 160, 80, 0}, 4: {160, 240, 0, 80},
		5: {0, 160, 80, 240}, 6: {160, 0, 240, 80}, 7: {240, 80, 160, 0}, 8: {80, 240, 0, 160}, 9: {0, 80, 160, 240}, 0: {0, 80, 160, 240},
	} {
		for magic, order := range map[string]binary.AppendByteOrder{"II*\x00": binary.LittleEndian, "MM\x00*": binary.BigEndian} {
			got := run(t, spec.Image{Width: 2, Height: 2, Channels: 1}, withOrientation(b.Bytes(), order, magic, value))
			for i := range got {
				if math.Abs(got[i]-want[i]) > 2 {
					t.Errorf("%d %q: %v, want %v", value, magic, got, want)
				}
			}
		}
	}
}

// chunk makes a PNG chunk.
func chunk(kind string, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	b = append(append(b, kind...), data...)

	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

func TestRefusals(t *testing.T) {
	t.Parallel()

	small := image.NewPaletted(image.Rect(0, 0, 4, 4), color.Palette{color.White, color.Black})

	var gifs, bmps, jpg bytes.Buffer
	if err := errors.Join(gif.Encode(&gifs, small, nil), bmp.Encode(&bmps, small), jpeg.Encode(&jpg, small, nil)); err != nil {
		t.Fatal(err)
	}

	header := func(w, h uint32) []byte {
		b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)

		return append([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(b, 8, 6, 0, 0, 0))...)
	}
	good := encode(t, small)

	p, err := imaging.New(spec.Image{Width: 2, Height: 2, Channels: 1}, engine.FP32, 1000, imaging.NewGate(1<<20))
	if err != nil {
		t.Fatal(err)
	}

	for name, c := range map[string]struct {
		picture []byte
		code    fault.Code
		part    string
	}{
		"empty":      {nil, fault.BadImage, "empty"},
		"text":       {[]byte("hello world, this is no picture"), fault.BadImage, "not supported"},
		"gif":        {gifs.Bytes(), fault.BadImage, "GIF"},
		"bmp":        {bmps.Bytes(), fault.BadImage, "BMP"},
		"cut":        {good[:len(good)-20], fault.BadImage, "PNG"},
		"no pixels":  {header(3, 3), fault.BadImage, "PNG"},
		"bomb":       {header(60_000, 60_000), fault.ImageTooLarge, "1000 pixels"},
		"wide":       {header(1001, 1), fault.ImageTooLarge, "1001 x 1"},
		"zero":       {header(0, 1), fault.BadImage, ""},
		"cut jpeg":   {jpg.Bytes()[:300], fault.BadImage, "JPEG"},
		"scans":      {append(slices.Clone(jpg.Bytes()), bytes.Repeat([]byte{0xff, 0xda}, 300)...), fault.BadImage, "scans"},
		"webp magic": {[]byte("RIFF\x00\x00\x00\x00WEBPVP8 "), fault.BadImage, "WebP"},
	} {
		_, err := p.Append(t.Context(), nil, c.picture)
		if f := fault.From(err); f == nil || f.Code != c.code || !strings.Contains(f.Message(), c.part) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGateHonoursTheContext(t *testing.T) {
	t.Parallel()

	p, err := imaging.New(spec.Image{Width: 2, Height: 2, Channels: 1}, engine.FP32, 0, imaging.NewGate(1))
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	if _, err := p.Append(ctx, nil, encode(t, gray([]uint8{1}))); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		cfg spec.Image
		typ engine.DataType
	}{
		"size":     {spec.Image{Width: 0, Height: 2, Channels: 1}, engine.FP32},
		"huge":     {spec.Image{Width: 1 << 20, Height: 1 << 20, Channels: 1}, engine.FP32},
		"channels": {spec.Image{Width: 2, Height: 2, Channels: 2}, engine.FP32},
		"type":     {spec.Image{Width: 2, Height: 2, Channels: 1}, engine.Bytes},
		"mean":     {spec.Image{Width: 2, Height: 2, Channels: 1, Mean: []float64{1, 2}}, engine.FP32},
		"std":      {spec.Image{Width: 2, Height: 2, Channels: 1, Std: []float64{0}}, engine.FP32},
	} {
		if _, err := imaging.New(c.cfg, c.typ, 0, imaging.NewGate(1)); !errors.Is(err, &fault.Error{Code: fault.ModelInvalid}) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestElementTypes(t *testing.T) {
	t.Parallel()

	for typ, want := range map[engine.DataType][]byte{ //nolint:exhaustive // a choice of each kind
		engine.Uint8: {100}, engine.Int32: {100, 0, 0, 0}, engine.FP16: {0x40, 0x56}, engine.BF16: {0xc8, 0x42}, engine.FP32: {0, 0, 0xc8, 0x42},
	} {
		p, err := imaging.New(spec.Image{Width: 1, Height: 1, Channels: 1, Scale: 1}, typ, 0, imaging.NewGate(1<<20))
		if err != nil {
			t.Fatal(err)
		}

		if got, err := p.Append(t.Context(), nil, encode(t, gray([]uint8{100}))); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v, %v", typ, got, err)
		}
	}
}

func FuzzAppend(f *testing.F) {
	var jpg bytes.Buffer
	if err := jpeg.Encode(&jpg, gray([]uint8{1, 2}, []uint8{3, 4}), nil); err != nil {
		f.Fatal(err)
	}

	f.Add(encode(f, gray([]uint8{1, 2}, []uint8{3, 4})))
	f.Add(jpg.Bytes())
	f.Add(withOrientation(jpg.Bytes(), binary.LittleEndian, "II*\x00", 6))
	f.Add([]byte("RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"))

	p, err := imaging.New(spec.Image{
		Width: 3, Height: 2, Channels: 3, Fit: "contain", Resize: "bicubic", Invert: "auto", CenterContent: true, Margin: 0.3, StretchContrast: true,
	}, engine.FP32, 10_000, imaging.NewGate(1<<24))
	if err != nil {
		f.Fatal(err)
	}

	f.Fuzz(func(t *testing.T, picture []byte) {
		got, err := p.Append(t.Context(), nil, picture)

		switch {
		case err == nil:
			if len(got) != 4*3*2*3 {
				t.Fatalf("%d bytes", len(got))
			}
		case fault.From(err).Code.Status() >= 500:
			t.Fatal(err)
		}
	})
}

func BenchmarkLargePicture(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	grey := image.NewGray(image.Rect(0, 0, 4000, 4000))
	rgba := image.NewNRGBA(image.Rect(0, 0, 4000, 4000))

	for i := range grey.Pix {
		grey.Pix[i] = uint8(i>>4) + uint8(r.Uint32()&3)
		rgba.Pix[4*i], rgba.Pix[4*i+3] = grey.Pix[i], 255
	}

	var jpg bytes.Buffer
	if err := jpeg.Encode(&jpg, rgba, nil); err != nil {
		b.Fatal(err)
	}

	for name, picture := range map[string][]byte{"grey.png": encode(b, grey), "rgb.png": encode(b, rgba), "rgb.jpg": jpg.Bytes()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				run(b, spec.Image{Width: 8, Height: 8, Channels: 1, Invert: "auto", StretchContrast: true}, picture)
			}
		})
	}
}
