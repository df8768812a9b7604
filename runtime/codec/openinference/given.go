package openinference

import (
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// Given is an infer request that came in another encoding, such as gRPC.
type Given struct {
	ID string
	// Inputs in any order; Data aliases memory that outlives the Request's tensors.
	Inputs   []engine.Tensor
	Outputs  []GivenOutput
	Priority int
	Timeout  time.Duration
}

// GivenOutput asks for an output.
type GivenOutput struct {
	Name    string
	Classes int
}

// Take checks g as Decode checks a body. All outputs are binary.
func (r *Request) Take(m *Model, g *Given) error {
	r.Reset()
	r.idMem = append(r.idMem, g.ID...)
	r.ID, r.BinaryOutput, r.Priority, r.Timeout = r.idMem, true, g.Priority, g.Timeout

	for i := range g.Inputs {
		t := &g.Inputs[i]

		in := input{name: t.Name, typ: t.Type, shape: t.Shape, data: t.Data, hasShape: true, binary: -1}

		in.index = slices.IndexFunc(m.Inputs, func(i engine.Info) bool { return i.Name == t.Name })
		if k, ok := m.Pictures[t.Name]; ok && in.index < 0 {
			in.index = k
		}

		if in.index < 0 {
			return fault.New(fault.BadTensor, "unexpected inference input '%s' for model '%s'", clip([]byte(t.Name)), m.Name)
		}

		if engine.Elements(t.Shape) < 0 {
			return fault.New(fault.BadTensor, "the shape of input '%s' is negative or too large", t.Name)
		}

		_, picture := m.Pictures[in.name]
		in.picture = picture && in.typ == engine.Bytes && m.Inputs[in.index].Type != engine.Bytes
		r.given = append(r.given, in)
	}

	for _, o := range g.Outputs {
		k := slices.IndexFunc(m.Outputs, func(i engine.Info) bool { return i.Name == o.Name })
		if k < 0 {
			return fault.New(fault.BadTensor, "unexpected inference output '%s' for model '%s'", clip([]byte(o.Name)), m.Name)
		}

		if slices.Contains(r.Names, m.Outputs[k].Name) {
			return fault.New(fault.InvalidArgument, "output '%s' already exists in request", clip([]byte(o.Name)))
		}

		r.Outputs = append(r.Outputs, Output{Index: k, Binary: true, Classes: o.Classes})
		r.Names = append(r.Names, m.Outputs[k].Name)
	}

	return r.bind(m)
}

// Each calls f with the outputs that r asks for, in their order, classified where it asks for that.
func (r *Request) Each(m *Model, outs []engine.Tensor, f func(t *engine.Tensor)) error {
	for i := range r.count(m) {
		want := r.want(i)

		t, err := find(m, outs, want.Index)
		if err != nil {
			return err
		}

		if want.Classes > 0 {
			if t, err = classify(m, t, want.Classes); err != nil {
				return err
			}
		}

		f(t)
	}

	return nil
}

// Reserved reports whether the name of a request parameter is not for clients to use.
func Reserved(name string) bool {
	return strings.HasPrefix(name, "triton_") && name != "triton_enable_empty_final_response"
}
