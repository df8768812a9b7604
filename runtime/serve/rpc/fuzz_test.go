package rpc_test

import (
	"context"
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/sluice-gateway/sluice/runtime/codec/inferencepb"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/serve"
	"github.com/sluice-gateway/sluice/runtime/serve/rpc"
)

// FuzzModelInfer hands any message that parses to the service.
func FuzzModelInfer(f *testing.F) {
	for _, req := range []*pb.ModelInferRequest{
		input("FP32", []int64{1, 2}, &pb.InferTensorContents{Fp32Contents: []float32{1, 2}}),
		input("INT8", []int64{1, 2}, &pb.InferTensorContents{IntContents: []int32{1, 200}}),
		input("BYTES", []int64{1, 2}, &pb.InferTensorContents{BytesContents: [][]byte{nil, nil}}),
		{ModelName: "echo_FP16", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP16", Shape: []int64{1, 2}}}, RawInputContents: [][]byte{{1, 2, 3, 4}}},
	} {
		b, err := proto.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}

		f.Add(b)
	}

	app, err := serve.New(serve.Config{}, &models{}, &serve.State{}, serve.Hooks{}, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}

	svc := rpc.NewService(app)

	f.Fuzz(func(t *testing.T, b []byte) {
		var req pb.ModelInferRequest
		if proto.Unmarshal(b, &req) != nil {
			return
		}

		res, err := svc.ModelInfer(context.Background(), &req)
		if err != nil {
			if s := serve.Status(err); s >= 500 {
				t.Fatalf("status %d: %v", s, err)
			}

			return
		}

		out := res.GetOutputs()[0]
		size := engine.ParseDataType(out.GetDatatype()).Size()

		if size > 0 && int64(len(res.GetRawOutputContents()[0])) != engine.Elements(out.GetShape())*int64(size) && len(req.GetOutputs()) == 0 {
			t.Fatalf("%d bytes for shape %v", len(res.GetRawOutputContents()[0]), out.GetShape())
		}
	})
}
