package serve

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

// indexLine is one element of the repository index.
type indexLine struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	State   string `json:"state,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// IndexState gives a state its name in the protocol, and the reason shown with it.
func IndexState(s repo.Status) (state, reason string) {
	switch s.State {
	case repo.Ready:
		return "READY", s.Reason
	case repo.Draining:
		return "UNLOADING", s.Reason
	case repo.Unloaded:
		return "UNAVAILABLE", "unloaded"
	case repo.Failed:
		return "UNAVAILABLE", s.Reason
	case repo.Queued, repo.Fetching, repo.Verifying, repo.Loading, repo.Warming:
		return "LOADING", string(s.State)
	default:
		return "UNKNOWN", s.Reason
	}
}

// repository answers /v2/repository/...
func (a *App) repository(x *Exchange, rest string) error {
	if rest == "/index" {
		return a.index(x)
	}

	if model, ok := strings.CutPrefix(rest, "/models/"); ok {
		if name, ok := strings.CutSuffix(model, "/load"); ok && name != "" && !strings.Contains(name, "/") {
			return a.load(x, name)
		}

		if name, ok := strings.CutSuffix(model, "/unload"); ok && name != "" && !strings.Contains(name, "/") {
			return a.unload(x, name)
		}

		return notFound()
	}

	// A repository's name between is part of the protocol, and no server serves it.
	if _, after, ok := strings.Cut(strings.TrimPrefix(rest, "/"), "/"); ok &&
		(after == "index" || strings.HasPrefix(after, "models/")) {
		return fault.New(fault.NotImplemented, "'repository_name' specification is not supported")
	}

	return notFound()
}

func (a *App) index(x *Exchange) error {
	if err := allow(x, "POST"); err != nil {
		return err
	}

	if err := a.openV2(x); err != nil {
		return err
	}

	var ask struct {
		Ready bool `json:"ready"`
	}

	if err := readOptional(x.Body, &ask); err != nil {
		return err
	}

	list := []indexLine{}

	for _, s := range a.models.Index() {
		if ask.Ready && s.State != repo.Ready {
			continue
		}

		state, reason := IndexState(s)
		list = append(list, indexLine{s.Name, s.Version, state, reason})
	}

	return x.reply(200, list)
}

func readOptional(body []byte, into any) error {
	if len(body) == 0 {
		return nil
	}

	if err := json.Unmarshal(body, into); err != nil {
		return fault.Wrap(fault.BadJSON, err, "failed to parse the request JSON buffer: %s", err.Error())
	}

	return nil
}

func (a *App) load(x *Exchange, name string) error {
	if err := a.parameters(x); err != nil {
		return err
	}

	if err := a.models.Load(x.Context, name); err != nil {
		return LoadError(name, err)
	}

	x.json(200)

	return nil
}

// LoadError puts a failed load into the words that clients look for.
func LoadError(name string, err error) error {
	var f *fault.Error
	if !errors.As(err, &f) {
		return err
	}

	if f.Code == fault.ModelNotFound {
		return fault.Wrap(f.Code, err, "failed to load '%s', failed to poll from model repository", clip(name))
	}

	return fault.Wrap(f.Code, err, "failed to load '%s', %s", clip(name), f.Message())
}

func (a *App) unload(x *Exchange, name string) error {
	if err := a.parameters(x); err != nil {
		return err
	}

	if err := a.models.Unload(x.Context, name, ""); err != nil {
		var f *fault.Error
		if errors.As(err, &f) {
			return fault.Wrap(f.Code, err, "failed to unload '%s', %s", clip(name), f.Message())
		}

		return err //nolint:wrapcheck // unclassified, stays internal
	}

	x.json(200)

	return nil
}

// parameters reads the optional body of load and unload.
func (a *App) parameters(x *Exchange) error {
	if err := allow(x, "POST"); err != nil {
		return err
	}

	if err := a.openV2(x); err != nil {
		return err
	}

	var ask struct {
		Parameters map[string]any `json:"parameters"`
	}

	if err := readOptional(x.Body, &ask); err != nil {
		return err
	}

	for key := range ask.Parameters {
		if key != "unload_dependents" {
			return fault.New(fault.NotImplemented, "the parameter '%s' is not supported: models are loaded from their package only", clip(key))
		}
	}

	return nil
}
