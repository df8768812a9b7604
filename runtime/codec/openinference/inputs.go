package openinference

import (
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

func (r *Request) inputs(m *Model) error {
	s := &r.scan
	if s.Peek() != '[' {
		return fault.New(fault.InvalidArgument, "Unable to parse 'inputs': it must be an array")
	}

	if err := s.BeginArray(); err != nil {
		return err
	}

	for {
		more, err := s.NextElem()
		if err != nil || !more {
			return err
		}

		if len(r.given) == maxInputs {
			return fault.New(fault.InvalidArgument, "more than %d inputs", maxInputs)
		}

		if err := r.input(m); err != nil {
			return err
		}
	}
}

// input reads one element of inputs.
func (r *Request) input(m *Model) error {
	s := &r.scan
	if s.Peek() != '{' {
		return fault.New(fault.InvalidArgument, "Unable to parse 'inputs': element %d must be an object", len(r.given))
	}

	if err := s.BeginObject(); err != nil {
		return err
	}

	in := input{index: -1, dataAt: -1, binary: -1}

	for {
		key, more, err := s.NextKey()
		if err != nil {
			return err
		}

		if !more {
			break
		}

		if err := r.inputMember(m, &in, key); err != nil {
			return err
		}
	}

	return r.finishInput(m, &in)
}

func (r *Request) inputMember(m *Model, in *input, key []byte) error {
	s := &r.scan

	switch string(key) {
	case "name":
		return r.inputName(m, in)
	case "datatype":
		text, err := s.String()
		if err != nil {
			return fault.New(fault.InvalidArgument, "Unable to parse 'datatype' of input '%s': it must be a string", r.label(in))
		}

		in.typ = engine.ParseDataType(string(text))
		if in.typ == engine.Invalid {
			return fault.New(fault.BadTensor, "invalid datatype '%s' for input '%s'", clip(text), r.label(in))
		}

		return nil
	case "shape":
		return r.inputShape(in)
	case "parameters":
		return r.inputParameters(in)
	case "data":
		return r.inputData(in)
	default:
		return s.Skip()
	}
}

// label names an input in messages before its name was read.
func (r *Request) label(in *input) string {
	if in.index < 0 {
		return "<unnamed>"
	}

	return in.name
}

func (r *Request) inputName(m *Model, in *input) error {
	text, err := r.scan.String()
	if err != nil {
		return fault.New(fault.InvalidArgument, "Unable to parse 'name' of input %d: it must be a string", len(r.given))
	}

	for i := range m.Inputs {
		if m.Inputs[i].Name == string(text) {
			in.index = i
			in.name = m.Inputs[i].Name

			break
		}
	}

	if i, ok := m.Pictures[string(text)]; ok && in.index < 0 {
		in.index = i
		in.name = string(text)
	}

	if in.index < 0 {
		return fault.New(fault.BadTensor, "unexpected inference input '%s' for model '%s'", clip(text), m.Name)
	}

	return nil
}

func (r *Request) inputShape(in *input) error {
	s := &r.scan
	bad := func() error {
		return fault.New(fault.BadTensor, "Unable to parse 'shape' of input '%s': it must be an array of at most %d non-negative integers",
			r.label(in), maxRank)
	}

	if in.hasShape {
		return fault.New(fault.InvalidArgument, "'shape' of input '%s' is given twice", r.label(in))
	}

	if s.Peek() != '[' {
		return bad()
	}

	if err := s.BeginArray(); err != nil {
		return err
	}

	start := len(r.dims)

	for {
		more, err := s.NextElem()
		if err != nil {
			return err
		}

		if !more {
			break
		}

		d, err := s.Int64()
		if err != nil || d < 0 || len(r.dims)-start == maxRank {
			return bad()
		}

		r.dims = append(r.dims, d)
	}

	in.shape = r.dims[start:len(r.dims):len(r.dims)]
	in.hasShape = true

	if engine.Elements(in.shape) < 0 {
		return fault.New(fault.BadTensor, "the shape of input '%s' is too large", r.label(in))
	}

	return nil
}

func (r *Request) inputParameters(in *input) error {
	s := &r.scan
	if s.Peek() != '{' {
		return fault.New(fault.InvalidArgument, "Unable to parse 'parameters' of input '%s': it must be an object", r.label(in))
	}

	if err := s.BeginObject(); err != nil {
		return err
	}

	for {
		key, more, err := s.NextKey()
		if err != nil || !more {
			return err
		}

		switch string(key) {
		case "binary_data_size":
			var v uint64
			v, err = uintParam(s, "binary_data_size", 1<<40)
			in.binary = int64(v)
		case "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size":
			err = fault.New(fault.InvalidArgument, "input '%s': shared memory is not supported by this server", r.label(in))
		default:
			err = s.Skip()
		}

		if err != nil {
			return err
		}
	}
}

// inputData reads the values at once when shape and datatype are known, else notes where they are.
func (r *Request) inputData(in *input) error {
	if in.hasData {
		return fault.New(fault.InvalidArgument, "'data' of input '%s' is given twice", r.label(in))
	}

	in.hasData = true

	if in.index >= 0 && in.hasShape && in.typ != engine.Invalid {
		return r.values(&r.scan, in)
	}

	r.scan.Peek()
	in.dataAt = r.scan.Offset()

	return r.scan.Skip()
}

func (r *Request) values(s *codec.Scanner, in *input) error {
	n := engine.Elements(in.shape)

	// Every value takes two bytes of text at least, so a shape beyond it is a lie and gets no memory.
	if left := int64(s.Left()); n > left/2+1 {
		return fault.New(fault.BadTensor,
			"Failed to parse 'data' field of input '%s': shape does not match true shape: %d elements expected, the body is too short",
			r.label(in), n)
	}

	start := len(r.buf)

	var err error

	r.buf, err = s.Values(r.buf, r.label(in), in.typ, int(n))
	in.data = r.buf[start:len(r.buf):len(r.buf)]

	return err
}

// finishInput reads postponed data and checks that there is exactly one source of values.
func (r *Request) finishInput(m *Model, in *input) error {
	switch {
	case in.index < 0:
		return fault.New(fault.InvalidArgument, "Unable to parse 'name' of input %d: attempt to access JSON non-existing member 'name'", len(r.given))
	case !in.hasShape:
		return fault.New(fault.InvalidArgument, "Unable to parse 'shape' of input '%s': attempt to access JSON non-existing member 'shape'", r.label(in))
	case in.typ == engine.Invalid:
		return fault.New(fault.InvalidArgument, "Unable to parse 'datatype' of input '%s': attempt to access JSON non-existing member 'datatype'", r.label(in))
	case in.hasData && in.binary >= 0:
		return fault.New(fault.InvalidArgument, "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "+
			"'shared_memory_region' in 'parameters'. But set 'data' 'binary_data_size' for input '%s'", r.label(in))
	case !in.hasData && in.binary < 0 && engine.Elements(in.shape) > 0:
		return fault.New(fault.InvalidArgument, "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "+
			"'shared_memory_region' in 'parameters'. But no field is set for input '%s'", r.label(in))
	}

	if in.dataAt >= 0 {
		sub := r.scan.From(in.dataAt)
		if err := r.values(&sub, in); err != nil {
			return err
		}
	}

	_, picture := m.Pictures[in.name]
	in.picture = picture && in.typ == engine.Bytes && m.Inputs[in.index].Type != engine.Bytes
	r.given = append(r.given, *in)

	return nil
}

func (r *Request) outputs(m *Model) error {
	s := &r.scan
	if s.Peek() != '[' {
		return fault.New(fault.InvalidArgument, "Unable to parse 'outputs': it must be an array")
	}

	if err := s.BeginArray(); err != nil {
		return err
	}

	for {
		more, err := s.NextElem()
		if err != nil || !more {
			return err
		}

		if len(r.Outputs) == maxOutputs {
			return fault.New(fault.InvalidArgument, "more than %d outputs", maxOutputs)
		}

		if err := r.output(m); err != nil {
			return err
		}
	}
}

func (r *Request) output(m *Model) error {
	s := &r.scan
	if s.Peek() != '{' {
		return fault.New(fault.InvalidArgument, "Unable to parse 'outputs': element %d must be an object", len(r.Outputs))
	}

	if err := s.BeginObject(); err != nil {
		return err
	}

	out := Output{Index: -1}

	for {
		key, more, err := s.NextKey()
		if err != nil {
			return err
		}

		if !more {
			break
		}

		switch string(key) {
		case "name":
			err = r.outputName(m, &out)
		case "parameters":
			err = outputParameters(s, &out)
		default:
			err = s.Skip()
		}

		if err != nil {
			return err
		}
	}

	if out.Index < 0 {
		return fault.New(fault.InvalidArgument, "Unable to parse 'name' of output %d: attempt to access JSON non-existing member 'name'", len(r.Outputs))
	}

	r.Outputs = append(r.Outputs, out)
	r.Names = append(r.Names, m.Outputs[out.Index].Name)

	return nil
}

func (r *Request) outputName(m *Model, out *Output) error {
	text, err := r.scan.String()
	if err != nil {
		return fault.New(fault.InvalidArgument, "Unable to parse 'name' of output %d: it must be a string", len(r.Outputs))
	}

	for i := range m.Outputs {
		if m.Outputs[i].Name == string(text) {
			out.Index = i
		}
	}

	if out.Index < 0 {
		return fault.New(fault.BadTensor, "unexpected inference output '%s' for model '%s'", clip(text), m.Name)
	}

	for i := range r.Outputs {
		if r.Outputs[i].Index == out.Index {
			return fault.New(fault.InvalidArgument, "output '%s' already exists in request", clip(text))
		}
	}

	return nil
}

func outputParameters(s *codec.Scanner, out *Output) error {
	if s.Peek() != '{' {
		return fault.New(fault.InvalidArgument, "Unable to parse 'parameters' of an output: it must be an object")
	}

	if err := s.BeginObject(); err != nil {
		return err
	}

	for {
		key, more, err := s.NextKey()
		if err != nil || !more {
			return err
		}

		switch string(key) {
		case "binary_data":
			out.Binary, err = boolParam(s, "binary_data")
		case "classification":
			var v uint64
			v, err = uintParam(s, "classification", 1<<31-1)
			out.Classes = int(v)
		case "shared_memory_region", "shared_memory_offset", "shared_memory_byte_size":
			err = fault.New(fault.InvalidArgument, "shared memory is not supported by this server")
		default:
			err = s.Skip()
		}

		if err != nil {
			return err
		}
	}
}
