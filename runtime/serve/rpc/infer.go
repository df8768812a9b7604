package rpc

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/sluice-gateway/sluice/internal/fault"
	pb "github.com/sluice-gateway/sluice/runtime/codec/inferencepb"
	"github.com/sluice-gateway/sluice/runtime/codec/openinference"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

// service implements the protocol over an App.
type service struct {
	pb.UnimplementedGRPCInferenceServiceServer

	app *serve.App
}

// NewService returns the protocol over app, without a server. Its errors are faults.
func NewService(app *serve.App) pb.GRPCInferenceServiceServer { return &service{app: app} }

// ModelInfer runs one inference.
func (s *service) ModelInfer(ctx context.Context, req *pb.ModelInferRequest) (*pb.ModelInferResponse, error) {
	given, err := decode(req)
	if err != nil {
		return nil, err
	}

	out := &pb.ModelInferResponse{Id: req.GetId()}
	until, _ := ctx.Deadline()

	err = s.app.Infer(ctx, &serve.Job{
		Model: req.GetModelName(), Version: req.GetModelVersion(), Deadline: until,
		Decode: func(m *openinference.Model, r *openinference.Request) error { return r.Take(m, given) },
		Encode: func(m *openinference.Model, r *openinference.Request, outs []engine.Tensor) error {
			out.ModelName, out.ModelVersion = m.Name, m.Version

			return r.Each(m, outs, func(t *engine.Tensor) {
				out.Outputs = append(out.Outputs, &pb.ModelInferResponse_InferOutputTensor{
					Name: t.Name, Datatype: t.Type.String(), Shape: append([]int64{}, t.Shape...),
				})
				// The memory goes back when Encode returns, before the message is written.
				out.RawOutputContents = append(out.RawOutputContents, append([]byte{}, t.Data...))
			})
		},
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault, mapped by the interceptor
	}

	return out, nil
}

// decode reads the message; nothing of the model is known yet.
func decode(req *pb.ModelInferRequest) (*openinference.Given, error) {
	g := &openinference.Given{ID: req.GetId()}

	if err := parameters(g, req.GetParameters()); err != nil {
		return nil, err
	}

	raw := req.GetRawInputContents()
	if len(raw) > 0 && len(raw) != len(req.GetInputs()) {
		return nil, fault.New(fault.InvalidArgument,
			"expected %d raw input contents but got %d: each input needs one", len(req.GetInputs()), len(raw))
	}

	for i, in := range req.GetInputs() {
		t := engine.Tensor{Name: in.GetName(), Type: engine.ParseDataType(in.GetDatatype()), Shape: in.GetShape()}

		if t.Type == engine.Invalid {
			return nil, fault.New(fault.BadTensor, "invalid datatype '%.32s' for input '%.64s'", in.GetDatatype(), t.Name)
		}

		if in.GetParameters()["shared_memory_region"] != nil {
			return nil, fault.New(fault.InvalidArgument, "input '%.64s': shared memory is not supported by this server", t.Name)
		}

		if len(raw) > 0 {
			if in.GetContents() != nil {
				return nil, fault.New(fault.InvalidArgument,
					"contents field must not be specified when using raw_input_contents for '%.64s'", t.Name)
			}

			t.Data = raw[i]
		} else if err := contents(&t, in.GetContents()); err != nil {
			return nil, err
		}

		g.Inputs = append(g.Inputs, t)
	}

	for _, o := range req.GetOutputs() {
		want := openinference.GivenOutput{Name: o.GetName()}

		if o.GetParameters()["shared_memory_region"] != nil {
			return nil, fault.New(fault.InvalidArgument, "output '%.64s': shared memory is not supported by this server", o.GetName())
		}

		if p := o.GetParameters()["classification"]; p != nil {
			n := number(p)
			if n < 0 || n > math.MaxInt32 {
				return nil, fault.New(fault.InvalidArgument, "parameter 'classification' of output '%.64s' must be a number of classes", o.GetName())
			}

			want.Classes = int(n)
		}

		g.Outputs = append(g.Outputs, want)
	}

	return g, nil
}

func parameters(g *openinference.Given, params map[string]*pb.InferParameter) error {
	for key, p := range params {
		switch {
		case key == "priority" || key == "timeout":
			n := number(p)
			if n < 0 {
				return fault.New(fault.InvalidArgument, "parameter '%s' must be a non-negative integer", key)
			}

			if key == "priority" {
				g.Priority = int(min(n, math.MaxInt32))
			} else {
				g.Timeout = time.Duration(min(n, 1<<53)) * time.Microsecond
			}
		case openinference.Reserved(key):
			return fault.New(fault.InvalidArgument,
				"parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.")
		}
	}

	return nil
}

// number is an integer parameter, -1 if it is none.
func number(p *pb.InferParameter) int64 {
	switch v := p.GetParameterChoice().(type) {
	case *pb.InferParameter_Int64Param:
		return v.Int64Param
	case *pb.InferParameter_Uint64Param:
		return int64(min(v.Uint64Param, math.MaxInt64))
	default:
		return -1
	}
}

// contents converts typed values.
func contents(t *engine.Tensor, c *pb.InferTensorContents) error {
	if t.Type == engine.FP16 || t.Type == engine.BF16 {
		return fault.New(fault.BadTensor, "%s data of input '%.64s' travels in raw_input_contents only", t.Type, t.Name)
	}

	given := len(c.GetBoolContents()) + len(c.GetIntContents()) + len(c.GetInt64Contents()) + len(c.GetUintContents()) +
		len(c.GetUint64Contents()) + len(c.GetFp32Contents()) + len(c.GetFp64Contents()) + len(c.GetBytesContents())

	used, err := fill(t, c)
	if err != nil {
		return err
	}

	if used != given {
		return fault.New(fault.BadTensor, "the contents of input '%.64s' do not suit datatype %s", t.Name, t.Type)
	}

	if n := engine.Elements(t.Shape); n >= 0 && int64(used) != n {
		return fault.New(fault.BadTensor, "unexpected number of elements %d for inference input '%.64s', expecting %d", used, t.Name, n)
	}

	return nil
}

// fill appends the values of the field that belongs to the type, and tells how many there were.
func fill(t *engine.Tensor, c *pb.InferTensorContents) (int, error) {
	le := binary.LittleEndian

	switch t.Type {
	case engine.Bool:
		for _, v := range c.GetBoolContents() {
			b := byte(0)
			if v {
				b = 1
			}

			t.Data = append(t.Data, b)
		}

		return len(c.GetBoolContents()), nil
	case engine.Int8, engine.Int16, engine.Int32:
		return len(c.GetIntContents()), signed(t, c.GetIntContents())
	case engine.Uint8, engine.Uint16, engine.Uint32:
		return len(c.GetUintContents()), unsigned(t, c.GetUintContents())
	case engine.Int64:
		for _, v := range c.GetInt64Contents() {
			t.Data = le.AppendUint64(t.Data, uint64(v))
		}

		return len(c.GetInt64Contents()), nil
	case engine.Uint64:
		for _, v := range c.GetUint64Contents() {
			t.Data = le.AppendUint64(t.Data, v)
		}

		return len(c.GetUint64Contents()), nil
	case engine.FP32:
		for _, v := range c.GetFp32Contents() {
			t.Data = le.AppendUint32(t.Data, math.Float32bits(v))
		}

		return len(c.GetFp32Contents()), nil
	case engine.FP64:
		for _, v := range c.GetFp64Contents() {
			t.Data = le.AppendUint64(t.Data, math.Float64bits(v))
		}

		return len(c.GetFp64Contents()), nil
	case engine.Bytes:
		for _, v := range c.GetBytesContents() {
			t.Data = append(le.AppendUint32(t.Data, uint32(len(v))), v...)
		}

		return len(c.GetBytesContents()), nil
	case engine.FP16, engine.BF16, engine.Invalid:
	}

	return 0, fault.New(fault.BadTensor, "input '%.64s' has no usable datatype", t.Name)
}

func signed(t *engine.Tensor, values []int32) error {
	bits := 8*t.Type.Size() - 1

	for i, v := range values {
		if int64(v) >= 1<<bits || int64(v) < -1<<bits {
			return fault.New(fault.BadTensor, "element %d of input '%.64s', %d, is out of range for datatype %s", i, t.Name, v, t.Type)
		}

		t.Data = appendInt(t.Data, t.Type.Size(), uint32(v))
	}

	return nil
}

func unsigned(t *engine.Tensor, values []uint32) error {
	for i, v := range values {
		if uint64(v)>>(8*t.Type.Size()) != 0 {
			return fault.New(fault.BadTensor, "element %d of input '%.64s', %d, is out of range for datatype %s", i, t.Name, v, t.Type)
		}

		t.Data = appendInt(t.Data, t.Type.Size(), v)
	}

	return nil
}

func appendInt(dst []byte, size int, v uint32) []byte {
	switch size {
	case 1:
		return append(dst, byte(v))
	case 2:
		return binary.LittleEndian.AppendUint16(dst, uint16(v))
	default:
		return binary.LittleEndian.AppendUint32(dst, v)
	}
}

// wantsStatus reports whether a client asked for gRPC errors on streams instead of error messages.
func wantsStatus(ctx context.Context) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	v := md.Get("triton_grpc_error")

	return len(v) > 0 && v[0] == "true"
}
