package ort

import (
	"bytes"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// Bound reports whether the binding runs s, and not the shim.
func Bound(s engine.Session) bool {
	_, ok := s.(*boundSession)

	return ok
}

// OpenShim loads a model for the shim whatever it carries, to compare.
func (e *Engine) OpenShim(path string) (engine.Session, error) {
	return e.openShim(engine.LoadSpec{Path: path}, providers[0], path, "")
}

// Symbols reads the names of the dimensions of a value from the bytes of a model.
func Symbols(model []byte, name string, rank int) ([]string, error) {
	h, err := parseHead(bytes.NewReader(model), int64(len(model)))
	if err != nil {
		return nil, err
	}

	return h.symbols(name, rank), nil
}
