package platform

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// form is the outer shape of the answer.
type form uint8

const (
	formAuto  form = iota // an object for one item, an array for more
	formArray             // an array
	formData              // {"data":{"resp_data":[...]}}
)

// Request is a decoded prediction request: columns of rows, one column per model input.
type Request struct {
	m       *Model
	columns []column
	form    form
	images  int
}

// column holds the rows of one input, back to back.
type column struct {
	rows []row
	data []byte
}

type row struct {
	shape    []int64 // of this row alone
	from, to int
}

// Decode reads a body. contentType is the header's value.
func (m *Model) Decode(ctx context.Context, contentType string, body []byte) (*Request, error) {
	if len(body) == 0 {
		return nil, fault.New(fault.EmptyBody, "")
	}

	r := &Request{m: m, columns: make([]column, len(m.meta.Inputs))}

	media, params, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))

	var err error

	switch {
	case media == "application/json" || strings.HasSuffix(media, "+json"):
		err = r.json(ctx, body)
	case media == "multipart/form-data":
		err = r.multipart(ctx, params, body)
	case strings.HasPrefix(media, "image/") || media == "application/octet-stream":
		err = r.bare(ctx, media, body)
	case media == "" || media == "text/plain" || media == "application/x-www-form-urlencoded":
		// curl -d and careless clients name no type or a wrong one; JSON is told by its first byte.
		if first := strings.TrimLeft(string(body[:min(len(body), 64)]), " \t\r\n"); !strings.HasPrefix(first, "{") {
			return nil, fault.New(fault.UnsupportedMedia, "The content type %q is not supported; send %s.", media, m.accepts())
		}

		err = r.json(ctx, body)
	default:
		return nil, fault.New(fault.UnsupportedMedia, "The content type %q is not supported; send %s.", clip(media), m.accepts())
	}

	if err != nil {
		return nil, err
	}

	return r, r.complete()
}

func (m *Model) accepts() string {
	if len(m.pictures) > 0 {
		return "application/json, multipart/form-data, image/png, image/jpeg or image/webp"
	}

	return "application/json or multipart/form-data"
}

// bare takes the body as one picture.
func (r *Request) bare(ctx context.Context, media string, body []byte) error {
	if len(r.m.pictures) != 1 {
		return fault.New(fault.UnsupportedMedia, "The content type %q is not supported by this model; send %s.", clip(media), r.m.accepts())
	}

	for i := range r.m.pictures {
		return r.picture(ctx, i, body)
	}

	return nil
}

// picture appends a row made from an encoded picture.
func (r *Request) picture(ctx context.Context, input int, b []byte) error {
	r.images++
	if r.images > r.m.maxImages {
		return fault.New(fault.InvalidArgument, "The request has more than %d images.", r.m.maxImages)
	}

	p := r.m.pictures[input]
	c := &r.columns[input]
	from := len(c.data)

	data, err := p.Append(ctx, c.data, b)
	if err != nil {
		return err
	}

	shape, _ := r.m.rowShape(input, p.Shape())
	c.data = data
	c.rows = append(c.rows, row{shape: shape, from: from, to: len(data)})

	return nil
}

// complete checks that every input has a row for every item.
func (r *Request) complete() error {
	most, full := 0, ""

	for i := range r.columns {
		if n := len(r.columns[i].rows); n > most {
			most, full = n, r.m.field(i)
		}
	}

	for i := range r.columns {
		switch n := len(r.columns[i].rows); {
		case n == 0:
			return fault.New(fault.InvalidArgument, "The field %q is missing.", r.m.field(i))
		case n != most:
			return fault.New(fault.InvalidArgument, "The field %q has %d values, the field %q has %d.", r.m.field(i), n, full, most)
		}
	}

	return nil
}

// field is the name that a caller should use for an input.
func (m *Model) field(input int) string {
	serving := m.meta.Config.Serving
	if serving != nil {
		for _, pre := range serving.Preprocess {
			if pre.Input == m.meta.Inputs[input].Name && pre.Field != "" {
				return pre.Field
			}
		}
	}

	if m.pictures[input] != nil && m.fields["image"] == input {
		return "image"
	}

	return m.meta.Inputs[input].Name
}

// known lists the fields, for messages.
func (m *Model) known() string {
	names := make([]string, 0, len(m.meta.Inputs))
	for i := range m.meta.Inputs {
		names = append(names, fmt.Sprintf("%q", m.field(i)))
	}

	return strings.Join(names, ", ")
}

// Items is the number of rows, each of which gets an answer of its own.
func (r *Request) Items() int {
	if len(r.columns) == 0 {
		return 0
	}

	return len(r.columns[0].rows)
}

// Batch returns the inputs for the longest run of items from first on that one request to
// the model can hold, and its length.
func (r *Request) Batch(first int) ([]engine.Tensor, int) {
	n := 1
	if r.m.meta.Batchable {
		limit := r.Items() - first
		if m := r.m.meta.MaxBatchSize; m > 0 {
			limit = min(limit, m)
		}

		for n < limit && r.alike(first, first+n) {
			n++
		}
	}

	in := make([]engine.Tensor, len(r.columns))

	for i := range r.columns {
		c := &r.columns[i]
		a, b := c.rows[first], c.rows[first+n-1]
		shape := a.shape

		if r.m.meta.Batchable {
			shape = append([]int64{int64(n)}, shape...)
		}

		info := &r.m.meta.Inputs[i]
		in[i] = engine.Tensor{Name: info.Name, Type: info.Type, Shape: shape, Data: c.data[a.from:b.to]}
	}

	return in, n
}

func (r *Request) alike(a, b int) bool {
	for i := range r.columns {
		if rows := r.columns[i].rows; !slices.Equal(rows[a].shape, rows[b].shape) {
			return false
		}
	}

	return true
}

// name puts the place of an error before its text.
func name(err error, format string, args ...any) error {
	f := fault.From(err)
	if f.Code == fault.Internal {
		return err
	}

	return fault.Wrap(f.Code, err, "%s: %s", fmt.Sprintf(format, args...), f.Message())
}

func clip(s string) string {
	const most = 64
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}

	return s
}
