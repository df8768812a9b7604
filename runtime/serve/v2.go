package serve

import (
	"bytes"
	"context"
	"errors"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/codec"
	"github.com/sluice-gateway/sluice/runtime/codec/openinference"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// route is a parsed V2 path under /v2/models.
type route struct {
	model, version string
	action         []byte
}

// v2 answers everything under /v2.
func (a *App) v2(x *Exchange) error {
	path := bytes.TrimSuffix(bytes.TrimPrefix(x.Path, []byte("/v2")), []byte("/"))

	switch string(path) {
	case "":
		return a.serverMetadata(x)
	case "/health/live":
		return a.live(x)
	case "/health/ready":
		return a.ready(x)
	case "/models":
		return a.listModels(x)
	case "/models/stats":
		return a.stats(x, "", "")
	}

	if rest, ok := bytes.CutPrefix(path, []byte("/repository")); ok {
		return a.repository(x, string(rest))
	}

	if name := extension(path); name != "" {
		return NotOffered(name)
	}

	rest, ok := bytes.CutPrefix(path, []byte("/models/"))
	if !ok {
		return notFound()
	}

	r, ok := parseRoute(rest)
	if !ok {
		return notFound()
	}

	switch string(r.action) {
	case "infer":
		return a.infer(x, r)
	case "":
		return a.metadata(x, r)
	case "ready":
		return a.modelReady(x, r)
	case "config":
		return a.config(x, r)
	case "stats":
		return a.stats(x, r.model, r.version)
	case "trace/setting":
		return NotOffered("trace")
	case "generate", "generate_stream":
		return NotOffered("generate")
	default:
		return notFound()
	}
}

// extension names the extension of the protocol that a path belongs to and this server does not offer, or "".
func extension(path []byte) string {
	first, _, _ := bytes.Cut(bytes.TrimPrefix(path, []byte("/")), []byte("/"))

	switch string(first) {
	case "systemsharedmemory":
		return "system shared memory"
	case "cudasharedmemory":
		return "CUDA shared memory"
	case "trace":
		return "trace"
	case "logging":
		return "logging"
	default:
		return ""
	}
}

// NotOffered refuses a call of an extension of the protocol.
func NotOffered(extension string) error {
	return fault.New(fault.NotImplemented, "the %s extension is not supported by this server", extension)
}

func notFound() error { return fault.New(fault.APINotFound, "Not Found") }

// parseRoute reads MODEL[/versions/VERSION][/ACTION].
func parseRoute(rest []byte) (route, bool) {
	var r route

	model, rest, _ := bytes.Cut(rest, []byte("/"))
	r.model = string(model)

	if after, ok := bytes.CutPrefix(rest, []byte("versions/")); ok {
		version, more, _ := bytes.Cut(after, []byte("/"))
		if len(version) == 0 {
			return r, false
		}

		r.version = string(version)
		rest = more
	}

	r.action = rest

	return r, r.model != ""
}

func (a *App) acquire(r route) (Model, error) { return a.Acquire(r.model, r.version) }

// Acquire borrows a model; its faults have the words that V2 clients know.
func (a *App) Acquire(model, version string) (Model, error) {
	r := route{model: model, version: version}

	m, err := a.models.Acquire(r.model, r.version)
	if err == nil {
		return m, nil
	}

	var f *fault.Error
	if !errors.As(err, &f) {
		return nil, err //nolint:wrapcheck // unclassified, stays internal
	}

	what := "'" + clip(r.model) + "'"
	if r.version != "" {
		what += " version " + clip(r.version)
	}

	switch f.Code { //nolint:exhaustive // the others are told as they are
	case fault.ModelNotFound:
		return nil, fault.Wrap(fault.ModelNotFound, err, "Request for unknown model: %s is not found", what)
	case fault.ModelNotReady:
		return nil, &statusError{fault.Wrap(fault.ModelNotReady, err, "Request for unknown model: %s is not at ready state", what), 503}
	default:
		return nil, err //nolint:wrapcheck // a fault of the repository
	}
}

// infer answers POST .../infer.
func (a *App) infer(x *Exchange, r route) error {
	c, err := a.begin(x, r)
	if err != nil {
		return err
	}
	defer c.finish()

	if err := a.decode(x, c, c.cm); err != nil {
		return err
	}

	res, err := c.infer(x.Context)
	if err != nil {
		return err
	}

	return a.inferred(x, c, res)
}

// begin borrows the model and takes hold of the body. After a nil error the call has to be finished.
func (a *App) begin(x *Exchange, r route) (*call, error) {
	if err := allow(x, "POST"); err != nil {
		return nil, err
	}

	m, err := a.acquire(r)
	if err != nil {
		return nil, err
	}

	c := a.call()
	c.model = m

	if err := a.takeBody(x, c); err != nil {
		c.finish()

		return nil, err
	}

	return c, nil
}

func (a *App) takeBody(x *Exchange, c *call) error {
	if err := a.openV2(x); err != nil {
		return err
	}

	if err := checkBody(x, &c.model.Meta().Config); err != nil {
		return err
	}

	c.take(x)
	c.cm = a.cache.get(c.model.Meta())

	return c.cm.err
}

// inferred writes the answer and releases the result.
func (a *App) inferred(x *Exchange, c *call, res *batch.Result) error {
	defer res.Release()

	explain(x, &res.Info)

	out, header, err := openinference.AppendResponse(x.Out, &c.v2, c.cm.v2, res.Outputs)
	if err != nil {
		return err //nolint:wrapcheck // a fault of the codec
	}

	x.Out = out
	x.json(200)

	if header >= 0 {
		x.Type = "application/octet-stream"
		x.add("Inference-Header-Content-Length", strconv.Itoa(header))
	}

	a.compress(x, 1)

	return nil
}

// decode reads the body into c and prepares the batcher's request.
func (a *App) decode(x *Exchange, c *call, cm *compiled) error {
	if len(x.Body) == 0 {
		return fault.New(fault.EmptyBody, "failed to parse the request JSON buffer: The document is empty. at 0")
	}

	header, err := headerLength(x)
	if err != nil {
		return err
	}

	if err := c.v2.Decode(cm.v2, x.Body, header); err != nil {
		return err //nolint:wrapcheck // a fault of the codec
	}

	until, err := deadline(x)
	if err != nil {
		return err
	}

	if err := a.pictures(x.Context, c, cm); err != nil {
		return err
	}

	c.prepare(cm.v2.Meta, until)

	return nil
}

// headerLength reads Inference-Header-Content-Length; -1 without it.
func headerLength(x *Exchange) (int, error) {
	v := x.Header.Get("Inference-Header-Content-Length")
	if v == nil {
		return -1, nil
	}

	n, err := strconv.Atoi(string(v))
	if err != nil {
		return 0, fault.New(fault.InvalidArgument, "Unable to parse Inference-Header-Content-Length, got: %s", clip(string(v)))
	}

	if n < 0 || n > len(x.Body) {
		return 0, fault.New(fault.InvalidArgument, "inference header size should be in range (0, %d), got: %d", len(x.Body), n)
	}

	return n, nil
}

// pictures replaces BYTES inputs that hold encoded pictures by the tensors made from them.
func (a *App) pictures(ctx context.Context, c *call, cm *compiled) error {
	for i := range c.v2.Inputs {
		if !c.v2.Picture[i] {
			continue
		}

		t, err := a.picture(ctx, cm, i, &c.v2.Inputs[i])
		if err != nil {
			return err
		}

		c.v2.Inputs[i] = t
	}

	return nil
}

func (a *App) picture(ctx context.Context, cm *compiled, input int, given *engine.Tensor) (engine.Tensor, error) {
	p := cm.platform.Pipeline(input)

	var (
		data []byte
		err  error
		rows int64
	)

	codec.EachBytes(given.Data, func(elem []byte) bool {
		data, err = p.Append(ctx, data, unwrapPicture(elem))
		rows++

		return err == nil
	})

	if err != nil {
		return engine.Tensor{}, inputError(err, given.Name)
	}

	info := &cm.v2.Inputs[input]
	t := engine.Tensor{Name: info.Name, Type: info.Type, Data: data}

	if cm.v2.Batchable || len(info.Shape) > len(p.Shape()) {
		t.Shape = append(t.Shape, rows)
	}

	t.Shape = append(t.Shape, p.Shape()...)

	return t, openinference.Check(cm.v2, input, &t) //nolint:wrapcheck // a fault of the codec
}
