package rpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "github.com/sluice-gateway/sluice/runtime/codec/inferencepb"
)

// maxAhead is how many requests of one stream may run at once, so that they can share batches.
const maxAhead = 64

// pending is a request of a stream whose answer is due.
type pending struct {
	res *pb.ModelInferResponse
	err error
}

// ModelStreamInfer answers the requests of a stream in their order. They run side by side.
func (s *service) ModelStreamInfer(stream grpc.BidiStreamingServer[pb.ModelInferRequest, pb.ModelStreamInferResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()

	queue := make(chan chan pending, maxAhead)
	received := make(chan error, 1)

	go func() {
		defer close(queue)

		received <- s.receive(ctx, stream, queue)
	}()

	// After an error the receiver ends with the stream, which ends with this function.
	err := s.answer(ctx, stream, queue)
	if err != nil {
		cancel()

		return err
	}

	return <-received
}

// receive starts each request and queues its answer.
func (s *service) receive(ctx context.Context, stream grpc.BidiStreamingServer[pb.ModelInferRequest, pb.ModelStreamInferResponse],
	queue chan<- chan pending,
) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}

		if err != nil {
			return err //nolint:wrapcheck // a gRPC status
		}

		slot := make(chan pending, 1)

		select {
		case queue <- slot:
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // mapped by the interceptor
		}

		go func() {
			var p pending

			defer func() { slot <- p }()

			p = s.one(ctx, req)
		}()
	}
}

// one runs a request of a stream; a panic ends that request only.
func (s *service) one(ctx context.Context, req *pb.ModelInferRequest) (p pending) {
	defer func() {
		if v := recover(); v != nil {
			p = pending{err: errPanicked}
		}
	}()

	p.res, p.err = s.ModelInfer(ctx, req)

	return p
}

var errPanicked = errors.New("a request of a stream panicked")

// answer sends the answers in order.
func (s *service) answer(ctx context.Context, stream grpc.BidiStreamingServer[pb.ModelInferRequest, pb.ModelStreamInferResponse],
	queue <-chan chan pending,
) error {
	asStatus := wantsStatus(ctx)

	for slot := range queue {
		p := <-slot
		out := &pb.ModelStreamInferResponse{InferResponse: p.res}

		if p.err != nil {
			if asStatus {
				return p.err
			}

			out.ErrorMessage = status.Convert(toStatus(ctx, p.err)).Message()
		} else {
			p.res.Parameters = map[string]*pb.InferParameter{
				"triton_final_response": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}},
			}
		}

		if err := stream.Send(out); err != nil {
			return err //nolint:wrapcheck // a gRPC status
		}
	}

	return nil
}
