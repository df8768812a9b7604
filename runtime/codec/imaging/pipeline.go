package imaging

import (
	"context"
	"encoding/binary"
	"fmt"
	"image"
	"math"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/spec"
)

// Pipeline makes rows of one model input from pictures.
type Pipeline struct {
	cfg       spec.Image
	typ       engine.DataType
	gate      *Gate
	maxPixels int64
	shape     []int64
	scale     float64
	mean, std [3]float64
}

// maxSamples bounds the picture that a package may ask for.
const maxSamples = 1 << 26

// New makes a pipeline that writes elements of type typ. maxPixels 0 means DefaultMaxPixels.
func New(cfg spec.Image, typ engine.DataType, maxPixels int64, gate *Gate) (*Pipeline, error) {
	p := &Pipeline{cfg: cfg, typ: typ, gate: gate, maxPixels: maxPixels, scale: cfg.Scale, std: [3]float64{1, 1, 1}}

	if cfg.Channels == 0 {
		p.cfg.Channels = 1
	}

	if c := p.cfg.Channels; c != 1 && c != 3 {
		return nil, fault.New(fault.ModelInvalid, "preprocess: image: channels must be 1 or 3, not %d", c)
	}

	if cfg.Width <= 0 || cfg.Height <= 0 || int64(cfg.Width)*int64(cfg.Height) > maxSamples/3 {
		return nil, fault.New(fault.ModelInvalid, "preprocess: image: %d x %d is no size for a model input", cfg.Width, cfg.Height)
	}

	if typ == engine.Bytes || typ == engine.Bool || typ == engine.Invalid {
		return nil, fault.New(fault.ModelInvalid, "preprocess: image: the model input has type %s, which no picture gives", typ)
	}

	if p.maxPixels <= 0 {
		p.maxPixels = DefaultMaxPixels
	}

	if p.scale == 0 {
		p.scale = 1.0 / channelMax
	}

	if !spread(&p.mean, cfg.Mean) || !spread(&p.std, cfg.Std) {
		return nil, fault.New(fault.ModelInvalid, "preprocess: image: mean and std need one value or one per channel")
	}

	for _, s := range p.std {
		if s == 0 {
			return nil, fault.New(fault.ModelInvalid, "preprocess: image: std must not be 0")
		}
	}

	p.shape = p.layoutShape()

	return p, nil
}

func spread(dst *[3]float64, v []float64) bool {
	switch len(v) {
	case 0:
	case 1:
		*dst = [3]float64{v[0], v[0], v[0]}
	case 3:
		copy(dst[:], v)
	default:
		return false
	}

	return true
}

func (p *Pipeline) layoutShape() []int64 {
	w, h, c := int64(p.cfg.Width), int64(p.cfg.Height), int64(p.cfg.Channels)

	switch p.cfg.Layout {
	case "HWC":
		return []int64{h, w, c}
	case "FLAT":
		return []int64{h * w * c}
	default:
		return []int64{c, h, w}
	}
}

// Shape of one row.
func (p *Pipeline) Shape() []int64 { return p.shape }

// Append decodes one picture and appends its row to dst.
func (p *Pipeline) Append(ctx context.Context, dst, picture []byte) (out []byte, err error) {
	f, err := sniff(picture)
	if err != nil {
		return dst, err
	}

	defer func() { // the decoders read hostile bytes; one that trips must not take the worker along
		if v := recover(); v != nil {
			out, err = dst, fault.Wrap(fault.BadImage, fmt.Errorf("decoder panicked: %v", v), "The %s image cannot be decoded.", f.name)
		}
	}()

	cfg, err := measure(f, picture, p.maxPixels)
	if err != nil {
		return dst, err
	}

	leave, err := p.gate.enter(ctx, int64(cfg.Width)*int64(cfg.Height)*f.cost)
	if err != nil {
		return dst, err
	}
	defer leave()

	img, err := decode(f, picture)
	if err != nil {
		return dst, err
	}

	orient := 1
	if f.name == "JPEG" {
		orient = orientation(picture)
	}

	return p.encode(dst, p.samples(img, orient)), nil
}

// samples runs the stages up to contrast stretching.
func (p *Pipeline) samples(img image.Image, orient int) []float64 {
	src := newSource(img, orient, p.cfg.Channels, p.cfg.Background)
	area := box{0, 0, src.w, src.h}
	invert := p.cfg.Invert == "always"

	// Whether to invert can be found out on the way when every row passes anyway; where the picture is cut must be known first.
	var v survey

	late := p.cfg.Invert == "auto" && !p.cfg.CenterContent && (p.cfg.Fit == "" || p.cfg.Fit == "stretch") &&
		(p.cfg.Resize == "" || p.cfg.Resize == "area")
	if !late && (p.cfg.Invert == "auto" || p.cfg.CenterContent || p.cfg.Fit == "contain") {
		v = look(src)
	}

	if p.cfg.CenterContent {
		area = v.content(src, p.cfg.Margin)
	}

	if p.cfg.Fit == "cover" {
		area = area.cover(p.cfg.Width, p.cfg.Height)
	}

	out := make([]float64, p.cfg.Width*p.cfg.Height*p.cfg.Channels)
	w, h := p.cfg.Width, p.cfg.Height

	if p.cfg.Fit == "contain" {
		w, h = contained(area, w, h)

		for i := range out {
			out[i] = v.fill[i%p.cfg.Channels]
		}
	}

	r := newResizer(src, area, p.cfg.Resize, w, h)
	r.fill = v.fill

	if late {
		r.see = &v
	}

	r.run(out, p.cfg.Width, floorHalf(p.cfg.Width-w), floorHalf(p.cfg.Height-h))

	if late {
		v.finish(src)
	}

	if invert || (p.cfg.Invert == "auto" && v.light()) {
		for i, s := range out {
			out[i] = channelMax - s
		}
	}

	if p.cfg.StretchContrast {
		stretch(out)
	}

	return out
}

// contained is the largest size with the proportions of b that fits.
func contained(b box, width, height int) (w, h int) {
	scale := min(float64(width)/float64(b.w), float64(height)/float64(b.h))
	w = min(width, max(1, int(math.Round(float64(b.w)*scale))))
	h = min(height, max(1, int(math.Round(float64(b.h)*scale))))

	return w, h
}

func stretch(v []float64) {
	low, high := v[0], v[0]
	for _, s := range v {
		low, high = min(low, s), max(high, s)
	}

	// Rounding leaves traces in a picture of one value; they are not contrast.
	if high-low < 1e-9 {
		clear(v)

		return
	}

	for i, s := range v {
		v[i] = (s - low) / (high - low) * channelMax
	}
}

// encode normalises and appends in the model's layout and type.
func (p *Pipeline) encode(dst []byte, v []float64) []byte {
	ch := p.cfg.Channels
	pixels := len(v) / ch

	if p.cfg.Layout == "HWC" || p.cfg.Layout == "FLAT" {
		for i := range pixels {
			for c := range ch {
				dst = p.put(dst, v[i*ch+p.channel(c)], c)
			}
		}

		return dst
	}

	for c := range ch {
		for i := range pixels {
			dst = p.put(dst, v[i*ch+p.channel(c)], c)
		}
	}

	return dst
}

func (p *Pipeline) channel(c int) int {
	if p.cfg.BGR {
		return p.cfg.Channels - 1 - c
	}

	return c
}

func (p *Pipeline) put(dst []byte, sample float64, c int) []byte {
	v := (sample*p.scale - p.mean[c]) / p.std[c]

	switch p.typ { //nolint:exhaustive // the others are integers
	case engine.FP32:
		return binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(v)))
	case engine.FP64:
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
	case engine.FP16:
		return binary.LittleEndian.AppendUint16(dst, codec.Half(float32(v)))
	case engine.BF16:
		return binary.LittleEndian.AppendUint16(dst, codec.Brain(float32(v)))
	default:
		return codec.AppendRounded(dst, p.typ, v)
	}
}
