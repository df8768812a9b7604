package serve

import (
	"errors"
	"strings"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/codec/platform"
	"github.com/sluice-gateway/sluice/spec"
)

// predict answers POST / and the paths that the package declares.
func (a *App) predict(x *Exchange) error {
	if a.cfg.Model == "" {
		return fault.New(fault.EndpointUndefined, "This worker serves a repository of models, each below /v2/models.")
	}

	m, err := a.models.Acquire(a.cfg.Model, a.cfg.Version)
	if err != nil {
		if !isRoot(x.Path) {
			return fault.New(fault.EndpointUndefined, "The API %s does not exist.", clip(string(x.Path)))
		}

		if err := allow(x, "POST"); err != nil {
			return err
		}

		return notReady(err)
	}
	defer m.Release()

	meta := m.Meta()
	if !declared(&meta.Config, string(x.Path)) {
		return fault.New(fault.EndpointUndefined, "The API %s does not exist.", clip(string(x.Path)))
	}

	if err := allow(x, "POST"); err != nil {
		return err
	}

	c := a.cache.get(meta)
	if c.err != nil {
		return c.err
	}

	if err := a.open(x); err != nil {
		return err
	}

	if err := checkBody(x, &meta.Config); err != nil {
		return err
	}

	req, err := c.platform.Decode(x.Context, string(x.Header.Get("Content-Type")), x.Body)
	if err != nil {
		return err //nolint:wrapcheck // a fault of the codec
	}

	if err := a.runAll(x, m, c, req); err != nil {
		return err
	}

	a.compress(x, 1024)

	return nil
}

// notReady gives a model that is not loaded 503: here the caller asked for the right thing.
func notReady(err error) error {
	var f *fault.Error
	if errors.As(err, &f) && f.Code == fault.ModelNotReady {
		return &statusError{f, fault.Unavailable.Status()}
	}

	return err
}

func isRoot(path []byte) bool { return string(path) == "/" || len(path) == 0 }

// declared tells whether the package serves path; "/" always is.
func declared(cfg *spec.PackageConfig, path string) bool {
	if path == "/" || path == "" {
		return true
	}

	for _, api := range cfg.APIs {
		if strings.TrimSuffix("/"+strings.TrimPrefix(api.URL, "/"), "/") == strings.TrimSuffix(path, "/") {
			return true
		}
	}

	return false
}

// checkBody holds a body, decompressed, against the package's own limit.
func checkBody(x *Exchange, cfg *spec.PackageConfig) error {
	if cfg.Serving == nil || cfg.Serving.Limits.MaxBodyBytes <= 0 || int64(len(x.Body)) <= cfg.Serving.Limits.MaxBodyBytes {
		return nil
	}

	return fault.New(fault.BodyTooLarge, "The body has %d bytes; the model allows %d.", len(x.Body), cfg.Serving.Limits.MaxBodyBytes)
}

// runAll runs the items of a request, as many at once as the model takes, and writes the answer.
func (a *App) runAll(x *Exchange, m Model, c *compiled, req *platform.Request) error {
	until, err := deadline(x)
	if err != nil {
		return err
	}

	ans := req.Answer(x.Out)

	for first := 0; first < req.Items(); {
		in, rows := req.Batch(first)

		// The tensors are memory of their own, so the batcher may keep reading them after Infer.
		res, err := m.Infer(x.Context, &batch.Request{
			Inputs: in, Rows: rows, Outputs: c.outputs, Deadline: until, Free: func() {},
		})
		if err != nil {
			return err //nolint:wrapcheck // a fault of the batcher
		}

		if first == 0 {
			explain(x, &res.Info)
		}

		err = ans.Add(res.Outputs, rows)
		res.Release()

		if err != nil {
			return err //nolint:wrapcheck // a fault of the codec
		}

		first += rows
	}

	x.json(200)
	x.Out = ans.Bytes()

	return nil
}

func clip(s string) string {
	const most = 100
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}

	return s
}
