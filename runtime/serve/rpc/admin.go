package rpc

import (
	"context"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	pb "github.com/sluice-gateway/sluice/runtime/codec/inferencepb"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/runtime/serve"
	"github.com/sluice-gateway/sluice/spec"
)

// ServerLive is true as long as the process answers.
func (*service) ServerLive(context.Context, *pb.ServerLiveRequest) (*pb.ServerLiveResponse, error) {
	return &pb.ServerLiveResponse{Live: true}, nil
}

// ServerReady tells whether predictions succeed.
func (s *service) ServerReady(context.Context, *pb.ServerReadyRequest) (*pb.ServerReadyResponse, error) {
	state, _ := s.app.State().Report()

	return &pb.ServerReadyResponse{Ready: state == "ready"}, nil
}

// ModelReady tells whether a version can be used now.
func (s *service) ModelReady(_ context.Context, req *pb.ModelReadyRequest) (*pb.ModelReadyResponse, error) {
	m, err := s.app.Acquire(req.GetName(), req.GetVersion())
	if err != nil && serve.Status(err) == 503 {
		return &pb.ModelReadyResponse{}, nil
	}

	if err != nil {
		return nil, err //nolint:wrapcheck // a fault, mapped by the interceptor
	}

	m.Release()

	return &pb.ModelReadyResponse{Ready: !s.app.State().Draining()}, nil
}

// ServerMetadata tells what serves.
func (s *service) ServerMetadata(context.Context, *pb.ServerMetadataRequest) (*pb.ServerMetadataResponse, error) {
	return &pb.ServerMetadataResponse{Name: "sluice", Version: s.app.Release(), Extensions: serve.Extensions}, nil
}

// ModelMetadata describes a version's tensors.
func (s *service) ModelMetadata(_ context.Context, req *pb.ModelMetadataRequest) (*pb.ModelMetadataResponse, error) {
	m, err := s.app.Acquire(req.GetName(), req.GetVersion())
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault, mapped by the interceptor
	}
	defer m.Release()

	meta := m.Meta()

	return &pb.ModelMetadataResponse{
		Name: meta.Name, Versions: serve.Versions(s.app.Models(), meta.Name), Platform: serve.Platform(meta),
		Inputs: tensors(meta.Inputs), Outputs: tensors(meta.Outputs),
	}, nil
}

func tensors(infos []engine.Info) []*pb.ModelMetadataResponse_TensorMetadata {
	out := make([]*pb.ModelMetadataResponse_TensorMetadata, 0, len(infos))
	for i := range infos {
		out = append(out, &pb.ModelMetadataResponse_TensorMetadata{
			Name: infos[i].Name, Datatype: infos[i].Type.String(), Shape: infos[i].Shape,
		})
	}

	return out
}

// ModelConfig tells how a version is run.
func (s *service) ModelConfig(_ context.Context, req *pb.ModelConfigRequest) (*pb.ModelConfigResponse, error) {
	m, err := s.app.Acquire(req.GetName(), req.GetVersion())
	if err != nil {
		return nil, err //nolint:wrapcheck // a fault, mapped by the interceptor
	}
	defer m.Release()

	return &pb.ModelConfigResponse{Config: config(m.Meta())}, nil
}

func config(meta *repo.Meta) *pb.ModelConfig {
	serving := meta.Config.Serving
	if serving == nil {
		serving = &spec.Serving{}
	}

	group := &pb.ModelInstanceGroup{Name: meta.Name, Count: int32(meta.Executors), Kind: pb.ModelInstanceGroup_KIND_CPU}
	for _, id := range meta.GPUs {
		group.Kind = pb.ModelInstanceGroup_KIND_GPU
		group.Gpus = append(group.Gpus, int32(id))
	}

	c := &pb.ModelConfig{
		Name: meta.Name, Platform: serve.Platform(meta), Backend: "onnxruntime", DefaultModelFilename: meta.File,
		InstanceGroup: []*pb.ModelInstanceGroup{group},
		Parameters:    map[string]*pb.ModelParameter{"provider": {StringValue: meta.Provider}},
	}

	for i := range meta.Inputs {
		c.Input = append(c.Input, &pb.ModelInput{Name: meta.Inputs[i].Name, DataType: dataType(meta.Inputs[i].Type), Dims: dims(meta, meta.Inputs[i].Shape)})
	}

	for i := range meta.Outputs {
		c.Output = append(c.Output, &pb.ModelOutput{Name: meta.Outputs[i].Name, DataType: dataType(meta.Outputs[i].Type), Dims: dims(meta, meta.Outputs[i].Shape)})
	}

	if meta.Batchable {
		c.MaxBatchSize = int32(meta.MaxBatchSize)

		if b := batching(serving.Batching); b != nil {
			c.SchedulingChoice = b
		}
	}

	return c
}

func batching(b *spec.Batching) *pb.ModelConfig_DynamicBatching {
	out := &pb.ModelDynamicBatching{}
	if b == nil {
		return &pb.ModelConfig_DynamicBatching{DynamicBatching: out}
	}

	if b.Disabled {
		return nil
	}

	for _, n := range b.PreferredBatchSizes {
		out.PreferredBatchSize = append(out.PreferredBatchSize, int32(n))
	}

	out.MaxQueueDelayMicroseconds = uint64(b.MaxQueueDelayMicroseconds)
	out.PriorityLevels, out.DefaultPriorityLevel = uint64(b.PriorityLevels), uint64(b.DefaultPriority)

	return &pb.ModelConfig_DynamicBatching{DynamicBatching: out}
}

// dims are without the batch dimension.
func dims(meta *repo.Meta, shape []int64) []int64 {
	if meta.Batchable && len(shape) > 0 {
		return shape[1:]
	}

	return shape
}

func dataType(t engine.DataType) pb.DataType {
	if t == engine.Bytes {
		return pb.DataType_TYPE_STRING
	}

	return pb.DataType(pb.DataType_value["TYPE_"+t.String()])
}

// ModelStatistics tells the counters of one version, of a model's versions, or of all.
func (s *service) ModelStatistics(_ context.Context, req *pb.ModelStatisticsRequest) (*pb.ModelStatisticsResponse, error) {
	models := s.app.Models()
	out := &pb.ModelStatisticsResponse{}

	if req.GetName() != "" {
		m, err := s.app.Acquire(req.GetName(), req.GetVersion())
		if err != nil {
			return nil, err //nolint:wrapcheck // a fault, mapped by the interceptor
		}

		m.Release()
	}

	for _, st := range models.Index() {
		if st.State != repo.Ready || (req.GetName() != "" && st.Name != req.GetName()) ||
			(req.GetVersion() != "" && st.Version != req.GetVersion()) {
			continue
		}

		m, err := models.Acquire(st.Name, st.Version)
		if err != nil {
			continue // gone between the two calls
		}

		out.ModelStats = append(out.ModelStats, statistics(m.Meta(), m.Stats()))
		m.Release()
	}

	return out, nil
}

func span(s batch.Span) *pb.StatisticDuration {
	return &pb.StatisticDuration{Count: uint64(s.Count), Ns: uint64(s.Total.Nanoseconds())}
}

func statistics(meta *repo.Meta, s batch.Stats) *pb.ModelStatistics {
	out := &pb.ModelStatistics{
		Name: meta.Name, Version: meta.Version, InferenceCount: uint64(s.Inferences), ExecutionCount: uint64(s.Executions),
		InferenceStats: &pb.InferStatistics{
			Success: span(s.Success), Fail: span(s.Fail), Queue: span(s.Queue), ComputeInput: span(s.CopyIn),
			ComputeInfer: span(s.Run), ComputeOutput: span(s.CopyOut), CacheHit: &pb.StatisticDuration{}, CacheMiss: &pb.StatisticDuration{},
		},
	}

	if !s.LastInference.IsZero() {
		out.LastInference = uint64(s.LastInference.UnixMilli())
	}

	for _, b := range s.Batches {
		out.BatchStats = append(out.BatchStats, &pb.InferBatchStatistics{
			BatchSize: uint64(b.BatchSize), ComputeInput: span(b.CopyIn), ComputeInfer: span(b.Run), ComputeOutput: span(b.CopyOut),
		})
	}

	return out
}

// RepositoryIndex lists every version.
func (s *service) RepositoryIndex(_ context.Context, req *pb.RepositoryIndexRequest) (*pb.RepositoryIndexResponse, error) {
	if err := noRepository(req.GetRepositoryName()); err != nil {
		return nil, err
	}

	out := &pb.RepositoryIndexResponse{}

	for _, st := range s.app.Models().Index() {
		if req.GetReady() && st.State != repo.Ready {
			continue
		}

		state, reason := serve.IndexState(st)
		out.Models = append(out.Models, &pb.RepositoryIndexResponse_ModelIndex{Name: st.Name, Version: st.Version, State: state, Reason: reason})
	}

	return out, nil
}

func noRepository(name string) error {
	if name != "" {
		return fault.New(fault.NotImplemented, "'repository_name' specification is not supported")
	}

	return nil
}

// RepositoryModelLoad loads a model again from its package.
func (s *service) RepositoryModelLoad(ctx context.Context, req *pb.RepositoryModelLoadRequest) (*pb.RepositoryModelLoadResponse, error) {
	if err := noRepository(req.GetRepositoryName()); err != nil {
		return nil, err
	}

	for key := range req.GetParameters() {
		return nil, fault.New(fault.NotImplemented, "the parameter '%.64s' is not supported: models are loaded from their package only", key)
	}

	if err := s.app.Models().Load(ctx, req.GetModelName()); err != nil {
		return nil, serve.LoadError(req.GetModelName(), err) //nolint:wrapcheck // a fault, mapped by the interceptor
	}

	return &pb.RepositoryModelLoadResponse{}, nil
}

// RepositoryModelUnload unloads every version of a model.
func (s *service) RepositoryModelUnload(ctx context.Context, req *pb.RepositoryModelUnloadRequest) (*pb.RepositoryModelUnloadResponse, error) {
	if err := noRepository(req.GetRepositoryName()); err != nil {
		return nil, err
	}

	if err := s.app.Models().Unload(ctx, req.GetModelName(), ""); err != nil {
		return nil, err //nolint:wrapcheck // a fault, mapped by the interceptor
	}

	return &pb.RepositoryModelUnloadResponse{}, nil
}
