package main

import (
	"context"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/ortlib"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort"
)

// closingEngine is an engine with an end.
type closingEngine interface {
	engine.Engine
	Close() error
}

// engine opens ONNX Runtime. Without it the worker still starts, to tell why no model loads.
func (w *worker) engine() closingEngine {
	lib, err := w.opt.library, error(nil)
	if lib == "" {
		lib, err = ortlib.Find()
	}

	if err != nil {
		return brokenEngine{err}
	}

	eng, err := ort.New(ort.Config{Library: lib}, w.log)
	if err != nil {
		return brokenEngine{err}
	}

	return eng
}

// brokenEngine loads nothing and says why.
type brokenEngine struct{ cause error }

func (brokenEngine) Name() string { return "none" }

func (e brokenEngine) Load(context.Context, engine.LoadSpec) (engine.Session, error) {
	return nil, fault.Wrap(fault.ModelInvalid, e.cause, "No engine: %s.", e.cause.Error())
}

func (brokenEngine) Close() error { return nil }
