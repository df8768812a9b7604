package ort

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// idleRuns bounds the run blocks that a session keeps for the next run.
const idleRuns = 32

// shimSession is one loaded model that the shim runs.
type shimSession struct {
	e        *Engine
	provider string
	inputs   []engine.Info
	outputs  []engine.Info
	inTypes  []C.int
	// outNames are C strings owned by c, in the order of outputs.
	outNames []*C.char
	c        *C.sl_session

	mu     sync.Mutex // guards closed and idle
	closed bool
	idle   []*run
	// running counts runs and outputs that are not released yet.
	running sync.WaitGroup
}

var _ engine.Session = (*shimSession)(nil)

// run is the memory of one run: a C block and what Go keeps with it.
type run struct {
	c       *C.sl_run
	pins    runtime.Pinner
	in, out []C.sl_tensor // views of the C block
	names   []*C.char
}

func newSession(e *Engine, c *C.sl_session, provider string) (*shimSession, error) {
	s := &shimSession{e: e, c: c, provider: provider}
	infos := unsafe.Slice(c.info, int(c.inputs+c.outputs))

	var skipped []string

	for i := range infos {
		ci := &infos[i]
		name := C.GoString(ci.name)
		info, ok := convertInfo(ci, name)
		input := i < int(c.inputs)

		switch {
		case input && !ok:
			return nil, inputRefused(name, int(ci.kind), int(ci.rank))
		case input:
			s.inputs = append(s.inputs, info)
			s.inTypes = append(s.inTypes, ci.elem)
		case ok:
			s.outputs = append(s.outputs, info)
			s.outNames = append(s.outNames, ci.name)
		default:
			skipped = append(skipped, fmt.Sprintf("%s (%s)", name, kindName(int(ci.kind), int(ci.rank))))
		}
	}

	if err := e.leaveOut(s.outputs, skipped); err != nil {
		return nil, err
	}

	return s, nil
}

func convertInfo(ci *C.sl_info, name string) (engine.Info, bool) {
	rank := int(ci.rank)
	if !carried(int(ci.kind), rank, int(ci.elem)) {
		return engine.Info{}, false
	}

	info := engine.Info{Name: name, Type: dataType(int(ci.elem)), Shape: make([]int64, rank)}
	symbols := make([]string, rank)

	for i := range info.Shape {
		info.Shape[i] = max(-1, int64(ci.dims[i]))
		symbols[i] = C.GoString(ci.symbols[i])
	}

	if slices.ContainsFunc(symbols, func(s string) bool { return s != "" }) {
		info.Names = symbols
	}

	return info, true
}

// Inputs implements engine.Session.
func (s *shimSession) Inputs() []engine.Info { return s.inputs }

// Outputs implements engine.Session; outputs that are not tensors are left out.
func (s *shimSession) Outputs() []engine.Info { return s.outputs }

// Provider implements engine.Session.
func (s *shimSession) Provider() string { return s.provider }

// Close implements engine.Session. It waits for runs and for outputs not released yet,
// then gives the memory back to the system.
func (s *shimSession) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()

	if again {
		return nil
	}

	s.running.Wait()

	for _, r := range s.idle {
		C.sl_run_free(s.e.lib, r.c)
	}

	s.idle = nil

	return apart(func() error {
		defer trim()

		C.sl_session_free(s.e.lib, s.c)

		return nil
	})
}
