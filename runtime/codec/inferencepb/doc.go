// Package inferencepb holds the messages and the service of the V2 protocol over gRPC, generated
// from the .proto files beside it by protoc-gen-go and protoc-gen-go-grpc.
package inferencepb

//go:generate protoc -I ../../.. --go_out=../../.. --go_opt=module=github.com/sluice-gateway/sluice --go-grpc_out=../../.. --go-grpc_opt=module=github.com/sluice-gateway/sluice ../../../runtime/codec/inferencepb/inference.proto ../../../runtime/codec/inferencepb/model_config.proto
