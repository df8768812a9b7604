package rpc

import (
	"context"

	pb "github.com/sluice-gateway/sluice/runtime/codec/inferencepb"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

// Calls of extensions that this server does not offer are refused by the name of the extension, as over REST.
const (
	systemMemory = "system shared memory"
	cudaMemory   = "CUDA shared memory"
)

// SystemSharedMemoryStatus implements the protocol.
func (*service) SystemSharedMemoryStatus(context.Context, *pb.SystemSharedMemoryStatusRequest) (*pb.SystemSharedMemoryStatusResponse, error) {
	return nil, serve.NotOffered(systemMemory) //nolint:wrapcheck // a fault, mapped by the interceptor
}

// SystemSharedMemoryRegister implements the protocol.
func (*service) SystemSharedMemoryRegister(context.Context, *pb.SystemSharedMemoryRegisterRequest) (*pb.SystemSharedMemoryRegisterResponse, error) {
	return nil, serve.NotOffered(systemMemory) //nolint:wrapcheck // as above
}

// SystemSharedMemoryUnregister implements the protocol.
func (*service) SystemSharedMemoryUnregister(context.Context, *pb.SystemSharedMemoryUnregisterRequest) (*pb.SystemSharedMemoryUnregisterResponse, error) {
	return nil, serve.NotOffered(systemMemory) //nolint:wrapcheck // as above
}

// CudaSharedMemoryStatus implements the protocol.
func (*service) CudaSharedMemoryStatus(context.Context, *pb.CudaSharedMemoryStatusRequest) (*pb.CudaSharedMemoryStatusResponse, error) {
	return nil, serve.NotOffered(cudaMemory) //nolint:wrapcheck // as above
}

// CudaSharedMemoryRegister implements the protocol.
func (*service) CudaSharedMemoryRegister(context.Context, *pb.CudaSharedMemoryRegisterRequest) (*pb.CudaSharedMemoryRegisterResponse, error) {
	return nil, serve.NotOffered(cudaMemory) //nolint:wrapcheck // as above
}

// CudaSharedMemoryUnregister implements the protocol.
func (*service) CudaSharedMemoryUnregister(context.Context, *pb.CudaSharedMemoryUnregisterRequest) (*pb.CudaSharedMemoryUnregisterResponse, error) {
	return nil, serve.NotOffered(cudaMemory) //nolint:wrapcheck // as above
}

// TraceSetting implements the protocol.
func (*service) TraceSetting(context.Context, *pb.TraceSettingRequest) (*pb.TraceSettingResponse, error) {
	return nil, serve.NotOffered("trace") //nolint:wrapcheck // as above
}

// LogSettings implements the protocol.
func (*service) LogSettings(context.Context, *pb.LogSettingsRequest) (*pb.LogSettingsResponse, error) {
	return nil, serve.NotOffered("logging") //nolint:wrapcheck // as above
}
