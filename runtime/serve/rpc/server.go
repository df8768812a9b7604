package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // so that clients may compress
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/sluice-gateway/sluice/internal/fault"
	pb "github.com/sluice-gateway/sluice/runtime/codec/inferencepb"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

// Config of a Server. Zero values take the defaults in the comments.
type Config struct {
	// MaxMessage bounds received messages; default 64 MiB.
	MaxMessage int
	// MaxStreams bounds the calls at once on one connection; default 1024.
	MaxStreams uint32
	// DrainDelay is how long the door stays open after it was told to stop.
	DrainDelay time.Duration
	// Grace bounds everything from then to the end; default 90 s.
	Grace time.Duration
	// Permit, when set, says by the metadata of the name PermitKey whether a call may come in.
	Permit    func(key []byte) bool
	PermitKey string
	// TLS of the door; nil means in the clear.
	TLS *tls.Config
}

func (c *Config) defaults() {
	if c.MaxMessage == 0 {
		c.MaxMessage = serve.DefaultMaxBody
	}

	if c.MaxStreams == 0 {
		c.MaxStreams = 1024
	}

	if c.Grace == 0 {
		c.Grace = 90 * time.Second
	}
}

// Server is the gRPC door.
type Server struct {
	cfg  Config
	log  *slog.Logger
	grpc *grpc.Server
}

// New returns a Server for app.
func New(cfg Config, app *serve.App, log *slog.Logger) *Server {
	cfg.defaults()

	s := &Server{cfg: cfg, log: log}
	s.grpc = grpc.NewServer(
		grpc.Creds(s.credentials()),
		grpc.MaxRecvMsgSize(cfg.MaxMessage),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(cfg.MaxStreams),
		grpc.InitialWindowSize(1<<20),
		grpc.InitialConnWindowSize(4<<20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.guardUnary),
		grpc.StreamInterceptor(s.guardStream),
	)

	pb.RegisterGRPCInferenceServiceServer(s.grpc, NewService(app))
	grpc_health_v1.RegisterHealthServer(s.grpc, &healthService{state: app.State()})
	reflection.Register(s.grpc)

	return s
}

// Run serves ln until ctx ends, keeps the door open for the drain delay, and then finishes what is
// in flight. now ends it at once.
func (s *Server) Run(ctx context.Context, ln net.Listener, now <-chan struct{}) error {
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(ln) }()

	select {
	case err := <-served:
		return fmt.Errorf("serve gRPC: %w", err)
	case <-ctx.Done():
	}

	grace := time.NewTimer(s.cfg.Grace)
	defer grace.Stop()

	delay := time.NewTimer(s.cfg.DrainDelay)
	defer delay.Stop()

	select {
	case <-delay.C:
	case <-now:
	}

	stopped := make(chan struct{})

	go func() {
		s.grpc.GracefulStop()
		close(stopped)
	}()

	select {
	case <-stopped:
	case <-now:
		s.grpc.Stop()
	case <-grace.C:
		s.log.Warn("cutting gRPC calls: the grace period is over")
		s.grpc.Stop()
	}

	<-stopped

	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC: %w", err)
	}

	return nil
}

func (s *Server) credentials() credentials.TransportCredentials {
	if s.cfg.TLS == nil {
		return insecure.NewCredentials()
	}

	return credentials.NewTLS(s.cfg.TLS)
}

// permit refuses calls without the key, if one is asked for.
func (s *Server) permit(ctx context.Context) error {
	if s.cfg.Permit == nil {
		return nil
	}

	given := ""
	if values := metadata.ValueFromIncomingContext(ctx, s.cfg.PermitKey); len(values) > 0 {
		given = values[0]
	}

	if !s.cfg.Permit([]byte(given)) {
		return status.Errorf(codes.Unauthenticated, "the direct channel wants the key of the service in %s", s.cfg.PermitKey) //nolint:wrapcheck // the answer itself
	}

	return nil
}

func (s *Server) guardUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
	defer s.recovered(info.FullMethod, &err)

	if err := s.permit(ctx); err != nil {
		return nil, err
	}

	out, err = next(ctx, req)

	return out, s.status(ctx, info.FullMethod, err)
}

func (s *Server) guardStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer s.recovered(info.FullMethod, &err)

	if err := s.permit(ss.Context()); err != nil {
		return err
	}

	return s.status(ss.Context(), info.FullMethod, next(srv, ss))
}

func (s *Server) recovered(method string, err *error) {
	if p := recover(); p != nil {
		s.log.Error("request handler panicked", slog.Any("panic", p), slog.String("method", method), slog.String("stack", string(debug.Stack())))

		*err = status.Error(codes.Internal, fault.Internal.Text())
	}
}

// status turns faults into gRPC errors and logs those that are nobody's mistake but ours.
func (s *Server) status(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}

	out := toStatus(ctx, err)
	if status.Code(out) == codes.Internal {
		s.log.Error("request failed", slog.String("method", method), slog.Any("error", err))
	}

	return out
}

// toStatus maps errors as Triton does.
func toStatus(ctx context.Context, err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}

	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "the deadline passed")
	case errors.Is(ctx.Err(), context.Canceled):
		return status.Error(codes.Canceled, "the call was cancelled")
	}

	code := codes.Internal

	switch s := serve.Status(err); {
	case s == 404:
		code = codes.NotFound
	case s == 501:
		code = codes.Unimplemented
	case s == 504:
		code = codes.DeadlineExceeded
	case s == 502, s == 503:
		code = codes.Unavailable
	case s == 499:
		code = codes.Canceled
	case s == 429:
		code = codes.ResourceExhausted
	case s < 500:
		code = codes.InvalidArgument
	}

	return status.Error(code, fault.From(err).Message())
}

// healthService is grpc.health.v1: the whole worker under "" and under the service's name.
type healthService struct {
	grpc_health_v1.UnimplementedHealthServer

	state *serve.State
}

func (h *healthService) now(name string) (grpc_health_v1.HealthCheckResponse_ServingStatus, bool) {
	if name != "" && name != pb.GRPCInferenceService_ServiceDesc.ServiceName {
		return grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN, false
	}

	if state, _ := h.state.Report(); state != "ready" {
		return grpc_health_v1.HealthCheckResponse_NOT_SERVING, true
	}

	return grpc_health_v1.HealthCheckResponse_SERVING, true
}

// Check implements the health service.
func (h *healthService) Check(_ context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	st, known := h.now(req.GetService())
	if !known {
		return nil, status.Error(codes.NotFound, "unknown service")
	}

	return &grpc_health_v1.HealthCheckResponse{Status: st}, nil
}

// Watch implements the health service: it tells changes soon after they happen.
func (h *healthService) Watch(req *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	const every = 200 * time.Millisecond

	tick := time.NewTicker(every)
	defer tick.Stop()

	last := grpc_health_v1.HealthCheckResponse_UNKNOWN

	for {
		if st, _ := h.now(req.GetService()); st != last {
			last = st

			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: st}); err != nil {
				return err //nolint:wrapcheck // a gRPC status
			}
		}

		// A watch would keep the door from closing; its clients learn from the end of the stream.
		if h.state.Draining() {
			return status.Error(codes.Unavailable, "the server is draining")
		}

		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-tick.C:
		}
	}
}
