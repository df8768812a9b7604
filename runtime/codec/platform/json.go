package platform

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"math"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// json reads {"field":...} or {"data":{"req_data":[{"field":...},...]}}.
func (r *Request) json(ctx context.Context, body []byte) error {
	var s codec.Scanner

	s.Reset(body)

	if s.Peek() != '{' {
		if err := s.Skip(); err != nil {
			return err
		}

		return fault.New(fault.BadJSON, "The body must be a JSON object.")
	}

	if wrapped, err := r.unwrap(ctx, body); wrapped || err != nil {
		return err
	}

	if err := r.object(ctx, &s); err != nil {
		return err
	}

	return s.End()
}

// unwrap reads the platform's form, if body has it.
func (r *Request) unwrap(ctx context.Context, body []byte) (bool, error) {
	var s codec.Scanner

	s.Reset(body)

	if err := s.BeginObject(); err != nil {
		return false, err
	}

	key, more, err := s.NextKey()
	if err != nil || !more || string(key) != "data" || s.Peek() != '{' {
		return false, err
	}

	if _, taken := r.m.fields["data"]; taken {
		return false, nil
	}

	r.form = formData

	if err := s.BeginObject(); err != nil {
		return false, err
	}

	if err := r.reqData(ctx, &s); err != nil {
		return false, err
	}

	if key, more, err = s.NextKey(); err != nil {
		return false, err
	}

	if more {
		return false, fault.New(fault.InvalidArgument, "The field %q is unknown beside \"data\".", clip(string(key)))
	}

	return true, s.End()
}

func (r *Request) reqData(ctx context.Context, s *codec.Scanner) error {
	found := false

	for {
		key, more, err := s.NextKey()
		if err != nil {
			return err
		}

		if !more {
			break
		}

		if string(key) != "req_data" {
			return fault.New(fault.InvalidArgument, "The field \"data.%s\" is unknown; \"data.req_data\" is expected.", clip(string(key)))
		}

		if found {
			return fault.New(fault.InvalidArgument, "The field \"data.req_data\" is given twice.")
		}

		found = true

		if err := r.reqItems(ctx, s); err != nil {
			return err
		}
	}

	if !found {
		return fault.New(fault.InvalidArgument, "The field \"data.req_data\" is missing.")
	}

	return nil
}

func (r *Request) reqItems(ctx context.Context, s *codec.Scanner) error {
	if s.Peek() != '[' {
		return fault.New(fault.InvalidArgument, "The field \"data.req_data\" must be an array.")
	}

	if err := s.BeginArray(); err != nil {
		return err
	}

	for i := 0; ; i++ {
		more, err := s.NextElem()
		if err != nil {
			return err
		}

		if !more {
			if i == 0 {
				return fault.New(fault.InvalidArgument, "The field \"data.req_data\" is empty.")
			}

			return nil
		}

		switch {
		case s.Peek() == '{':
			err = r.object(ctx, s)
		case len(r.columns) == 1:
			err = r.value(ctx, s, 0, r.m.field(0))
		default:
			err = fault.New(fault.InvalidArgument, "An object is expected.")
		}

		if err == nil {
			err = r.complete()
		}

		if err != nil {
			return name(err, "data.req_data[%d]", i)
		}
	}
}

// object reads one object of fields.
func (r *Request) object(ctx context.Context, s *codec.Scanner) error {
	if err := s.BeginObject(); err != nil {
		return err
	}

	before := make([]int, len(r.columns))
	for i := range r.columns {
		before[i] = len(r.columns[i].rows)
	}

	for {
		key, more, err := s.NextKey()
		if err != nil || !more {
			return err
		}

		field := string(key)

		input, ok := r.m.fields[field]
		if !ok {
			return fault.New(fault.InvalidArgument, "The field %q is unknown; the model takes %s.", clip(field), r.m.known())
		}

		if len(r.columns[input].rows) > before[input] {
			return fault.New(fault.InvalidArgument, "The field %q is given twice.", clip(field))
		}

		if err := r.value(ctx, s, input, field); err != nil {
			return err
		}
	}
}

// value reads a field's value.
func (r *Request) value(ctx context.Context, s *codec.Scanner, input int, field string) error {
	var err error
	if r.m.pictures[input] != nil {
		err = r.encoded(ctx, s, input)
	} else {
		err = r.numbers(s, input, field)
	}

	if f := fault.From(err); f != nil && f.Code == fault.BadJSON {
		return err
	}

	if err != nil {
		return name(err, "Field %q", clip(field))
	}

	return nil
}

// encoded reads a picture in base64, or an array of them.
func (r *Request) encoded(ctx context.Context, s *codec.Scanner, input int) error {
	if s.Peek() == '"' {
		return r.base64(ctx, s, input)
	}

	if s.Peek() != '[' {
		return fault.New(fault.InvalidArgument, "A picture in base64 or an array of them is expected.")
	}

	if r.form == formAuto {
		r.form = formArray
	}

	if err := s.BeginArray(); err != nil {
		return err
	}

	for i := 0; ; i++ {
		more, err := s.NextElem()
		if err != nil || !more {
			return err
		}

		if s.Peek() != '"' {
			return fault.New(fault.InvalidArgument, "Element %d is not a picture in base64.", i)
		}

		if err := r.base64(ctx, s, input); err != nil {
			return name(err, "Element %d", i)
		}
	}
}

func (r *Request) base64(ctx context.Context, s *codec.Scanner, input int) error {
	text, err := s.String()
	if err != nil {
		return err
	}

	b, err := DecodeBase64(text)
	if err != nil {
		return err
	}

	return r.picture(ctx, input, b)
}

// DecodeBase64 reads standard or URL-safe base64, padded or not, with or without a data URL before it.
func DecodeBase64(text []byte) ([]byte, error) {
	if bytes.HasPrefix(text, []byte("data:")) {
		_, rest, ok := bytes.Cut(text, []byte(";base64,"))
		if !ok {
			return nil, fault.New(fault.BadImage, "The data URL is not in base64.")
		}

		text = rest
	}

	if len(text) == 0 {
		return nil, fault.New(fault.BadImage, "The image is empty.")
	}

	enc := base64.RawStdEncoding
	if bytes.ContainsAny(text, "-_") {
		enc = base64.RawURLEncoding
	}

	text = bytes.TrimRight(text, "=\r\n \t")
	out := make([]byte, enc.DecodedLen(len(text)))

	n, err := enc.Decode(out, text)
	if err != nil {
		return nil, fault.Wrap(fault.BadImage, err, "The value is not valid base64.")
	}

	return out[:n], nil
}

// numbers reads one row or several rows of a tensor.
func (r *Request) numbers(s *codec.Scanner, input int, field string) error {
	info := &r.m.meta.Inputs[input]
	start := *s

	dims, err := s.Dims()
	if err != nil {
		return err
	}

	c := &r.columns[input]
	from := len(c.data)

	n := engine.Elements(dims)
	if c.data, err = values(&start, c.data, field, info.Type, n); err != nil {
		return err
	}

	if shape, ok := r.m.rowShape(input, dims); ok {
		c.rows = append(c.rows, row{shape: shape, from: from, to: len(c.data)})

		return nil
	}

	return r.manyRows(input, dims, from)
}

// manyRows takes the first dimension as rows.
func (r *Request) manyRows(input int, dims []int64, from int) error {
	info := &r.m.meta.Inputs[input]
	c := &r.columns[input]

	if !r.m.meta.Batchable || len(dims) == 0 || dims[0] == 0 {
		return misfit(info, dims)
	}

	shape, ok := r.m.rowShape(input, dims[1:])
	if !ok {
		return misfit(info, dims)
	}

	if r.form == formAuto {
		r.form = formArray
	}

	if info.Type == engine.Bytes {
		return r.splitBytes(c, shape, from)
	}

	size := (len(c.data) - from) / int(dims[0])
	for range dims[0] {
		c.rows = append(c.rows, row{shape: shape, from: from, to: from + size})
		from += size
	}

	return nil
}

// splitBytes cuts rows of strings, whose sizes differ.
func (r *Request) splitBytes(c *column, shape []int64, from int) error {
	per := engine.Elements(shape)
	at, k := from, int64(0)

	codec.EachBytes(c.data[from:], func(elem []byte) bool {
		at += 4 + len(elem)
		k++

		if k == per {
			c.rows = append(c.rows, row{shape: shape, from: from, to: at})
			from, k = at, 0
		}

		return true
	})

	return nil
}

func misfit(info *engine.Info, dims []int64) error {
	return fault.New(fault.BadTensor, "The value has shape %v, the model wants %v (-1: any) for input %q.", dims, info.Shape, info.Name)
}

// values reads n elements. Half-precision types, which V2 keeps out of JSON, are converted here.
func values(s *codec.Scanner, dst []byte, field string, t engine.DataType, n int64) ([]byte, error) {
	if t != engine.FP16 && t != engine.BF16 {
		return s.Values(dst, field, t, int(n))
	}

	wide, err := s.Values(nil, field, engine.FP32, int(n))
	if err != nil {
		return dst, err
	}

	for at := 0; at < len(wide); at += 4 {
		f := math.Float32frombits(binary.LittleEndian.Uint32(wide[at:]))
		if t == engine.FP16 {
			dst = binary.LittleEndian.AppendUint16(dst, codec.Half(f))
		} else {
			dst = binary.LittleEndian.AppendUint16(dst, codec.Brain(f))
		}
	}

	return dst, nil
}
