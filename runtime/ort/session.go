package ort

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// idleRuns bounds the run blocks that a session keeps for the next run.
const idleRuns = 32

// Session is one loaded model.
type Session struct {
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

var _ engine.Session = (*Session)(nil)

// run is the memory of one run: a C block and what Go keeps with it.
type run struct {
	c       *C.sl_run
	pins    runtime.Pinner
	in, out []C.sl_tensor // views of the C block
	names   []*C.char
}

func newSession(e *Engine, c *C.sl_session, provider string) (*Session, error) {
	s := &Session{e: e, c: c, provider: provider}
	infos := unsafe.Slice(c.info, int(c.inputs+c.outputs))

	var skipped []string

	for i := range infos {
		ci := &infos[i]
		name := C.GoString(ci.name)
		info, ok := convertInfo(ci, name)
		input := i < int(c.inputs)

		switch {
		case input && !ok:
			return nil, fault.New(fault.ModelInvalid, "The model's input %q is a %s, which cannot be sent.", name, kindName(ci))
		case input:
			s.inputs = append(s.inputs, info)
			s.inTypes = append(s.inTypes, ci.elem)
		case ok:
			s.outputs = append(s.outputs, info)
			s.outNames = append(s.outNames, ci.name)
		default:
			skipped = append(skipped, fmt.Sprintf("%s (%s)", name, kindName(ci)))
		}
	}

	if len(s.outputs) == 0 {
		return nil, fault.New(fault.ModelInvalid, "The model has no output that can be sent: %s.",
			strings.Join(skipped, ", "))
	}

	if len(skipped) > 0 {
		e.log.Warn("outputs that are not plain tensors are left out", slog.Any("outputs", strings.Join(skipped, ", ")))
	}

	return s, nil
}

func convertInfo(ci *C.sl_info, name string) (engine.Info, bool) {
	if ci.kind != C.KIND_TENSOR || ci.rank > C.SL_MAX_RANK || dataType(ci.elem) == engine.Invalid {
		return engine.Info{}, false
	}

	info := engine.Info{Name: name, Type: dataType(ci.elem), Shape: make([]int64, ci.rank)}
	for i := range info.Shape {
		info.Shape[i] = max(-1, int64(ci.dims[i]))

		if sym := C.GoString(ci.symbols[i]); sym != "" && info.Names == nil {
			info.Names = make([]string, ci.rank)
		}

		if info.Names != nil {
			info.Names[i] = C.GoString(ci.symbols[i])
		}
	}

	return info, true
}

func kindName(ci *C.sl_info) string {
	kinds := [...]string{"unknown value", "tensor", "sequence", "map", "opaque value", "sparse tensor", "optional value"}

	switch {
	case int(ci.kind) >= len(kinds):
		return kinds[0]
	case ci.kind != C.KIND_TENSOR:
		return kinds[ci.kind]
	case ci.rank > C.SL_MAX_RANK:
		return "tensor of too many dimensions"
	default:
		return "tensor of an element type outside the protocol"
	}
}

//nolint:gochecknoglobals // constant tables
var (
	elemTypes = [...]engine.DataType{
		1: engine.FP32, 2: engine.Uint8, 3: engine.Int8, 4: engine.Uint16, 5: engine.Int16, 6: engine.Int32,
		7: engine.Int64, 8: engine.Bytes, 9: engine.Bool, 10: engine.FP16, 11: engine.FP64, 12: engine.Uint32,
		13: engine.Uint64, 16: engine.BF16,
	}
)

func dataType(elem C.int) engine.DataType {
	if elem < 0 || int(elem) >= len(elemTypes) {
		return engine.Invalid
	}

	return elemTypes[elem]
}

// Inputs implements engine.Session.
func (s *Session) Inputs() []engine.Info { return s.inputs }

// Outputs implements engine.Session; outputs that are not tensors are left out.
func (s *Session) Outputs() []engine.Info { return s.outputs }

// Provider implements engine.Session.
func (s *Session) Provider() string { return s.provider }

// Close implements engine.Session. It waits for runs and for outputs not released yet,
// then gives the memory back to the system.
func (s *Session) Close() error {
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

	C.sl_session_free(s.e.lib, s.c)
	C.sl_trim()

	return nil
}
