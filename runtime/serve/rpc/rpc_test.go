package rpc_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	pb "github.com/sluice-gateway/sluice/runtime/codec/inferencepb"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/runtime/serve"
	"github.com/sluice-gateway/sluice/runtime/serve/rpc"
	"github.com/sluice-gateway/sluice/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// models serves one echo model for every type.
type models struct {
	run func(ctx context.Context, req *batch.Request) error
}

type echo struct {
	meta  *repo.Meta
	owner *models
}

func typeOf(name string) engine.DataType {
	return engine.ParseDataType(strings.TrimPrefix(name, "echo_"))
}

func (m *models) Acquire(name, version string) (serve.Model, error) {
	t := typeOf(name)
	if t == engine.Invalid || (version != "" && version != "1") {
		return nil, fault.New(fault.ModelNotFound, "none")
	}

	return &echo{owner: m, meta: &repo.Meta{
		Name: name, Version: "1", Batchable: true, MaxBatchSize: 4, File: "net.onnx", Executors: 2, Provider: "tensorrt", GPUs: []int{3},
		Config:  spec.PackageConfig{Serving: &spec.Serving{Batching: &spec.Batching{PriorityLevels: 2}}},
		Inputs:  []engine.Info{{Name: "x", Type: t, Shape: []int64{-1, 2}}},
		Outputs: []engine.Info{{Name: "y", Type: t, Shape: []int64{-1, 2}}},
	}}, nil
}

func (*models) Index() []repo.Status {
	return []repo.Status{{Name: "echo_FP32", Version: "1", State: repo.Ready}, {Name: "gone", Version: "2", State: repo.Unloaded}}
}

func (m *models) Load(_ context.Context, name string) error {
	_, err := m.Acquire(name, "")

	return err
}

func (m *models) Unload(ctx context.Context, name, _ string) error { return m.Load(ctx, name) }

func (e *echo) Meta() *repo.Meta { return e.meta }
func (*echo) Stats() batch.Stats { return batch.Stats{Inferences: 5, Executions: 2} }
func (*echo) Release()           {}
func (e *echo) Infer(ctx context.Context, req *batch.Request) (*batch.Result, error) {
	defer req.Free()

	if e.owner.run != nil {
		if err := e.owner.run(ctx, req); err != nil {
			return nil, err
		}
	}

	out := req.Inputs[0]
	out.Name = "y"
	out.Data = append([]byte(nil), out.Data...)

	return &batch.Result{Outputs: []engine.Tensor{out}}, nil
}

type world struct {
	models *models
	state  *serve.State
	client pb.GRPCInferenceServiceClient
	conn   *grpc.ClientConn
	stop   func()
}

func start(t *testing.T) *world {
	t.Helper()

	w := &world{models: &models{}, state: &serve.State{}}
	w.state.SetReady()

	app, err := serve.New(serve.Config{Release: "9"}, w.models, w.state, serve.Hooks{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	server := rpc.New(rpc.Config{MaxMessage: 8 << 20}, app, slog.New(slog.DiscardHandler))

	go func() { ended <- server.Run(ctx, ln, nil) }()

	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}

	w.conn, w.client, w.stop = conn, pb.NewGRPCInferenceServiceClient(conn), cancel

	t.Cleanup(func() {
		cancel()

		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}

		_ = conn.Close()
	})

	return w
}

func input(typ string, shape []int64, c *pb.InferTensorContents) *pb.ModelInferRequest {
	return &pb.ModelInferRequest{
		ModelName: "echo_" + typ, Id: "id7",
		Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: typ, Shape: shape, Contents: c}},
	}
}

func floats(v ...float32) []byte {
	var b []byte
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}

	return b
}

func TestEveryTypeComesBackRaw(t *testing.T) {
	t.Parallel()

	w := start(t)

	for typ, c := range map[string]struct {
		contents *pb.InferTensorContents
		raw      string
	}{
		"BOOL":   {&pb.InferTensorContents{BoolContents: []bool{true, false}}, "\x01\x00"},
		"INT8":   {&pb.InferTensorContents{IntContents: []int32{-128, 127}}, "\x80\x7f"},
		"INT16":  {&pb.InferTensorContents{IntContents: []int32{-2, 1}}, "\xfe\xff\x01\x00"},
		"INT32":  {&pb.InferTensorContents{IntContents: []int32{-2, 1}}, "\xfe\xff\xff\xff\x01\x00\x00\x00"},
		"INT64":  {&pb.InferTensorContents{Int64Contents: []int64{-1, 1}}, "\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00\x00\x00\x00\x00\x00"},
		"UINT8":  {&pb.InferTensorContents{UintContents: []uint32{0, 255}}, "\x00\xff"},
		"UINT16": {&pb.InferTensorContents{UintContents: []uint32{1, 65535}}, "\x01\x00\xff\xff"},
		"UINT32": {&pb.InferTensorContents{UintContents: []uint32{1, 2}}, "\x01\x00\x00\x00\x02\x00\x00\x00"},
		"UINT64": {&pb.InferTensorContents{Uint64Contents: []uint64{1, 2}}, "\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00"},
		"FP32":   {&pb.InferTensorContents{Fp32Contents: []float32{1, 2}}, string(floats(1, 2))},
		"FP64":   {&pb.InferTensorContents{Fp64Contents: []float64{0, 2}}, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40"},
		"BYTES":  {&pb.InferTensorContents{BytesContents: [][]byte{[]byte("a"), nil}}, "\x01\x00\x00\x00a\x00\x00\x00\x00"},
		"FP16":   {nil, "\x00\x3c\x00\x40"},
		"BF16":   {nil, "\x80\x3f\x00\x40"},
	} {
		req := input(typ, []int64{1, 2}, c.contents)
		if c.contents == nil {
			req.RawInputContents = [][]byte{[]byte(c.raw)}
		}

		var opts []grpc.CallOption

		switch len(typ) { // every way of compressing meets some types
		case 4:
			opts = append(opts, grpc.UseCompressor(gzip.Name))
		case 5:
			opts = append(opts, grpc.UseCompressor("deflate"))
		}

		res, err := w.client.ModelInfer(t.Context(), req, opts...)
		if err != nil {
			t.Errorf("%s: %v", typ, err)

			continue
		}

		if res.GetId() != "id7" || res.GetModelVersion() != "1" || len(res.GetRawOutputContents()) != 1 || string(res.GetRawOutputContents()[0]) != c.raw ||
			res.GetOutputs()[0].GetDatatype() != typ || res.GetOutputs()[0].GetName() != "y" {
			t.Errorf("%s: %v", typ, res)
		}
	}
}

func TestRefusalsCarryTheRightCode(t *testing.T) {
	t.Parallel()

	w := start(t)
	fp := func(n int) *pb.InferTensorContents { return &pb.InferTensorContents{Fp32Contents: make([]float32, n)} }
	with := func(change func(r *pb.ModelInferRequest)) *pb.ModelInferRequest {
		r := input("FP32", []int64{1, 2}, fp(2))
		change(r)

		return r
	}

	for name, c := range map[string]struct {
		req  *pb.ModelInferRequest
		code codes.Code
		part string
	}{
		"model":   {with(func(r *pb.ModelInferRequest) { r.ModelName = "nope" }), codes.NotFound, "unknown model"},
		"version": {with(func(r *pb.ModelInferRequest) { r.ModelVersion = "8" }), codes.NotFound, "version 8"},
		"name":    {with(func(r *pb.ModelInferRequest) { r.Inputs[0].Name = "q" }), codes.InvalidArgument, "unexpected inference input 'q'"},
		"none":    {with(func(r *pb.ModelInferRequest) { r.Inputs = nil }), codes.InvalidArgument, "missing required input(s) ['x']"},
		"type": {with(func(r *pb.ModelInferRequest) {
			r.Inputs[0].Datatype = "FP64"
			r.Inputs[0].Contents = &pb.InferTensorContents{Fp64Contents: make([]float64, 2)}
		}), codes.InvalidArgument, "data-type is 'FP64'"},
		"bad type":  {with(func(r *pb.ModelInferRequest) { r.Inputs[0].Datatype = "float" }), codes.InvalidArgument, "invalid datatype"},
		"shape":     {input("FP32", []int64{1, 3}, fp(3)), codes.InvalidArgument, "unexpected shape"},
		"negative":  {input("FP32", []int64{-1, 2}, fp(2)), codes.InvalidArgument, "'x'"},
		"few":       {input("FP32", []int64{1, 2}, fp(1)), codes.InvalidArgument, "unexpected number of elements 1"},
		"no data":   {input("FP32", []int64{1, 2}, nil), codes.InvalidArgument, "unexpected number of elements 0"},
		"field":     {input("FP32", []int64{1, 2}, &pb.InferTensorContents{Int64Contents: []int64{1, 2}}), codes.InvalidArgument, "do not suit"},
		"range":     {input("INT8", []int64{1, 2}, &pb.InferTensorContents{IntContents: []int32{1, 128}}), codes.InvalidArgument, "element 1 of input 'x', 128, is out of range"},
		"urange":    {input("UINT8", []int64{1, 2}, &pb.InferTensorContents{UintContents: []uint32{256, 0}}), codes.InvalidArgument, "out of range"},
		"half":      {input("FP16", []int64{1, 2}, fp(2)), codes.InvalidArgument, "raw_input_contents only"},
		"both":      {with(func(r *pb.ModelInferRequest) { r.RawInputContents = [][]byte{floats(1, 2)} }), codes.InvalidArgument, "must not be specified"},
		"raw count": {with(func(r *pb.ModelInferRequest) { r.Inputs[0].Contents = nil; r.RawInputContents = [][]byte{nil, nil} }), codes.InvalidArgument, "raw input contents"},
		"raw size":  {with(func(r *pb.ModelInferRequest) { r.Inputs[0].Contents = nil; r.RawInputContents = [][]byte{{1, 2, 3}} }), codes.InvalidArgument, "unexpected total byte size 3"},
		"batch":     {input("FP32", []int64{5, 2}, fp(10)), codes.InvalidArgument, "batch-size must be <= 4"},
		"output": {with(func(r *pb.ModelInferRequest) {
			r.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "z"}}
		}), codes.InvalidArgument, "unexpected inference output 'z'"},
		"reserved": {with(func(r *pb.ModelInferRequest) {
			r.Parameters = map[string]*pb.InferParameter{"triton_x": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 1}}}
		}), codes.InvalidArgument, "reserved"},
		"priority": {with(func(r *pb.ModelInferRequest) {
			r.Parameters = map[string]*pb.InferParameter{"priority": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "1"}}}
		}), codes.InvalidArgument, "'priority'"},
	} {
		_, err := w.client.ModelInfer(t.Context(), c.req)
		if status.Code(err) != c.code || !strings.Contains(status.Convert(err).Message(), c.part) {
			t.Errorf("%s: %v, want %s with %q", name, err, c.code, c.part)
		}
	}
}

func TestParametersDeadlineAndClasses(t *testing.T) {
	t.Parallel()

	w := start(t)

	var seen batch.Request

	w.models.run = func(_ context.Context, req *batch.Request) error {
		seen = *req

		return nil
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	req := input("FP32", []int64{2, 2}, &pb.InferTensorContents{Fp32Contents: []float32{1, 2, 4, 3}})
	req.Parameters = map[string]*pb.InferParameter{
		"priority": {ParameterChoice: &pb.InferParameter_Uint64Param{Uint64Param: 2}},
		"timeout":  {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 1500}},
	}
	req.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{
		Name: "y", Parameters: map[string]*pb.InferParameter{"classification": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 1}}},
	}}

	res, err := w.client.ModelInfer(ctx, req)
	if err != nil {
		t.Fatal(err)
	}

	if seen.Priority != 2 || seen.QueueTimeout != 1500*time.Microsecond || seen.Rows != 2 || seen.Deadline.IsZero() {
		t.Errorf("%+v", seen)
	}

	if got := string(res.GetRawOutputContents()[0]); got != "\x0a\x00\x00\x002.000000:1\x0a\x00\x00\x004.000000:0" || res.GetOutputs()[0].GetDatatype() != "BYTES" {
		t.Errorf("%q", got)
	}
}

func TestLargeMessagesPass(t *testing.T) {
	t.Parallel()

	w := start(t)
	req := input("BYTES", []int64{1, 2}, &pb.InferTensorContents{BytesContents: [][]byte{make([]byte, 6<<20), nil}})

	res, err := w.client.ModelInfer(t.Context(), req, grpc.MaxCallRecvMsgSize(16<<20))
	if err != nil || len(res.GetRawOutputContents()[0]) != 6<<20+8 {
		t.Error(err)
	}

	req.Inputs[0].Contents.BytesContents[0] = make([]byte, 9<<20)
	if _, err := w.client.ModelInfer(t.Context(), req); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("over the limit: %v", err)
	}
}

func TestStreamKeepsOrderAndTellsErrorsInBand(t *testing.T) {
	t.Parallel()

	w := start(t)

	stream, err := w.client.ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	for i := range 20 {
		req := input("FP32", []int64{1, 2}, &pb.InferTensorContents{Fp32Contents: []float32{float32(i), 0}})
		if i == 7 {
			req.ModelName = "nope"
		}

		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
	}

	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}

	for i := range 20 {
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}

		if i == 7 {
			if !strings.Contains(res.GetErrorMessage(), "unknown model") {
				t.Errorf("%v", res)
			}

			continue
		}

		r := res.GetInferResponse()
		if string(r.GetRawOutputContents()[0]) != string(floats(float32(i), 0)) || !r.GetParameters()["triton_final_response"].GetBoolParam() {
			t.Errorf("%d: %v", i, res)
		}
	}

	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}

	stream, err = w.client.ModelStreamInfer(metadata.AppendToOutgoingContext(t.Context(), "triton_grpc_error", "true"))
	if err != nil {
		t.Fatal(err)
	}

	if err := stream.Send(&pb.ModelInferRequest{ModelName: "nope"}); err != nil {
		t.Fatal(err)
	}

	if _, err := stream.Recv(); status.Code(err) != codes.NotFound {
		t.Errorf("as status: %v", err)
	}
}

func TestCancelledCallCancelsTheRun(t *testing.T) {
	t.Parallel()

	w := start(t)
	started, ended := make(chan struct{}), make(chan struct{})
	w.models.run = func(ctx context.Context, _ *batch.Request) error {
		close(started)
		<-ctx.Done()
		close(ended)

		return ctx.Err()
	}

	ctx, cancel := context.WithCancel(t.Context())

	go func() {
		<-started
		cancel()
	}()

	if _, err := w.client.ModelInfer(ctx, input("FP32", []int64{1, 2}, &pb.InferTensorContents{Fp32Contents: []float32{1, 2}})); status.Code(err) != codes.Canceled {
		t.Error(err)
	}

	<-ended
}

func TestPanicIsInternalWithoutItsText(t *testing.T) {
	t.Parallel()

	w := start(t)
	w.models.run = func(context.Context, *batch.Request) error { panic("secret") }

	_, err := w.client.ModelInfer(t.Context(), input("FP32", []int64{1, 2}, &pb.InferTensorContents{Fp32Contents: []float32{1, 2}}))
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

func TestAdministration(t *testing.T) {
	t.Parallel()

	w := start(t)
	ctx := t.Context()

	if r, err := w.client.ServerLive(ctx, &pb.ServerLiveRequest{}); err != nil || !r.GetLive() {
		t.Error(r, err)
	}

	if r, err := w.client.ServerReady(ctx, &pb.ServerReadyRequest{}); err != nil || !r.GetReady() {
		t.Error(r, err)
	}

	if r, err := w.client.ModelReady(ctx, &pb.ModelReadyRequest{Name: "echo_FP32"}); err != nil || !r.GetReady() {
		t.Error(r, err)
	}

	if _, err := w.client.ModelReady(ctx, &pb.ModelReadyRequest{Name: "nope"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}

	if r, err := w.client.ServerMetadata(ctx, &pb.ServerMetadataRequest{}); err != nil || r.GetName() != "sluice" || r.GetVersion() != "9" {
		t.Error(r, err)
	}

	if r, err := w.client.ModelMetadata(ctx, &pb.ModelMetadataRequest{Name: "echo_FP32"}); err != nil || r.GetInputs()[0].GetShape()[0] != -1 ||
		r.GetVersions()[0] != "1" || r.GetOutputs()[0].GetDatatype() != "FP32" {
		t.Error(r, err)
	}

	if r, err := w.client.ModelConfig(ctx, &pb.ModelConfigRequest{Name: "echo_BYTES"}); err != nil || r.GetConfig().GetMaxBatchSize() != 4 ||
		r.GetConfig().GetInput()[0].GetDataType() != pb.DataType_TYPE_STRING || r.GetConfig().GetDynamicBatching() == nil {
		t.Error(r, err)
	} else if g := r.GetConfig().GetInstanceGroup()[0]; g.GetKind() != pb.ModelInstanceGroup_KIND_GPU || !slices.Equal(g.GetGpus(), []int32{3}) ||
		g.GetCount() != 2 || r.GetConfig().GetDefaultModelFilename() != "net.onnx" || r.GetConfig().GetParameters()["provider"].GetStringValue() != "tensorrt" {
		t.Error(r)
	}

	if r, err := w.client.ModelStatistics(ctx, &pb.ModelStatisticsRequest{}); err != nil || len(r.GetModelStats()) != 1 || r.GetModelStats()[0].GetInferenceCount() != 5 {
		t.Error(r, err)
	}

	if r, err := w.client.RepositoryIndex(ctx, &pb.RepositoryIndexRequest{}); err != nil || len(r.GetModels()) != 2 || r.GetModels()[1].GetReason() != "unloaded" {
		t.Error(r, err)
	}

	if _, err := w.client.RepositoryModelLoad(ctx, &pb.RepositoryModelLoadRequest{ModelName: "nope"}); !strings.Contains(status.Convert(err).Message(), "failed to load 'nope'") {
		t.Error(err)
	}

	if _, err := w.client.RepositoryModelUnload(ctx, &pb.RepositoryModelUnloadRequest{RepositoryName: "disk"}); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
}

func TestExtensionsThatAreNotOfferedAreRefusedByName(t *testing.T) {
	t.Parallel()

	w := start(t)
	ctx := t.Context()

	for i, call := range []struct {
		name string
		err  error
	}{
		{"system shared memory", second(w.client.SystemSharedMemoryStatus(ctx, &pb.SystemSharedMemoryStatusRequest{}))},
		{"system shared memory", second(w.client.SystemSharedMemoryRegister(ctx, &pb.SystemSharedMemoryRegisterRequest{Name: "r", Key: "/k", ByteSize: 8}))},
		{"system shared memory", second(w.client.SystemSharedMemoryUnregister(ctx, &pb.SystemSharedMemoryUnregisterRequest{}))},
		{"CUDA shared memory", second(w.client.CudaSharedMemoryStatus(ctx, &pb.CudaSharedMemoryStatusRequest{}))},
		{"CUDA shared memory", second(w.client.CudaSharedMemoryRegister(ctx, &pb.CudaSharedMemoryRegisterRequest{}))},
		{"CUDA shared memory", second(w.client.CudaSharedMemoryUnregister(ctx, &pb.CudaSharedMemoryUnregisterRequest{}))},
		{"trace", second(w.client.TraceSetting(ctx, &pb.TraceSettingRequest{}))},
		{"logging", second(w.client.LogSettings(ctx, &pb.LogSettingsRequest{}))},
	} {
		st := status.Convert(call.err)
		if want := "the " + call.name + " extension is not supported by this server"; st.Code() != codes.Unimplemented || st.Message() != want {
			t.Errorf("call %d: %v, want %q", i, call.err, want)
		}
	}

	// A tensor in shared memory belongs to the extension as well; it must not be taken for one that was left out.
	req := input("FP32", []int64{1, 2}, nil)
	req.Inputs[0].Parameters = map[string]*pb.InferParameter{
		"shared_memory_region":    {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "r"}},
		"shared_memory_byte_size": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 8}},
	}

	if _, err := w.client.ModelInfer(ctx, req); !strings.Contains(status.Convert(err).Message(), "shared memory") {
		t.Error(err)
	}

	out := input("FP32", []int64{1, 2}, &pb.InferTensorContents{Fp32Contents: []float32{1, 2}})
	out.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y", Parameters: req.GetInputs()[0].GetParameters()}}

	if _, err := w.client.ModelInfer(ctx, out); !strings.Contains(status.Convert(err).Message(), "shared memory") {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestHealthAndReflection(t *testing.T) {
	t.Parallel()

	w := start(t)
	h := grpc_health_v1.NewHealthClient(w.conn)

	for name, want := range map[string]codes.Code{"": codes.OK, "inference.GRPCInferenceService": codes.OK, "x": codes.NotFound} {
		r, err := h.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: name})
		if status.Code(err) != want || (err == nil && r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING) {
			t.Errorf("%q: %v %v", name, r, err)
		}
	}

	watch, err := h.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}

	if r, err := watch.Recv(); err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Error(r, err)
	}

	ref, err := grpc_reflection_v1.NewServerReflectionClient(w.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	if err := ref.Send(&grpc_reflection_v1.ServerReflectionRequest{
		MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "inference.GRPCInferenceService"},
	}); err != nil {
		t.Fatal(err)
	}

	if r, err := ref.Recv(); err != nil || len(r.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
		t.Error(r, err)
	}

	if err := ref.CloseSend(); err != nil {
		t.Error(err)
	}

	w.state.SetDraining()

	if r, err := watch.Recv(); err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Error(r, err)
	}
}
