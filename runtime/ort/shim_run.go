package ort

/*
#cgo noescape sl_run_exec
#cgo nocallback sl_run_exec
#cgo noescape sl_run_clear
#cgo nocallback sl_run_clear
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// Run implements engine.Session.
func (s *shimSession) Run(ctx context.Context, in []engine.Tensor, outputs []string) ([]engine.Tensor, func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("run model: %w", err)
	}

	r, err := s.take()
	if err != nil {
		return nil, nil, err
	}

	if err := s.fill(r, in, outputs); err != nil {
		r.unpin()
		s.give(r)

		return nil, nil, err
	}

	finish := watch(ctx, func(on bool) { C.sl_run_terminate(s.e.lib, r.c, flag(on)) })
	st := C.sl_run_exec(s.e.lib, s.c, r.c)
	finish()
	r.unpin()

	if st != nil {
		err := s.runError(ctx, st)
		s.give(r)

		return nil, nil, err
	}

	out := s.results(r)
	release := sync.OnceFunc(func() {
		C.sl_run_clear(s.e.lib, r.c)
		s.give(r)
	})

	if i := slices.IndexFunc(out, func(t engine.Tensor) bool { return t.Type == engine.Invalid }); i >= 0 {
		release()

		return nil, nil, fault.New(fault.BackendFailed, "The model's output %q has a type that cannot be sent.", out[i].Name)
	}

	return out, release, nil
}

// unpin lets go of the inputs. The C block must not keep their addresses: overwriting one
// during a garbage collection marks what it points to, which may be free by then.
func (r *run) unpin() {
	for i := range r.in {
		r.in[i].data = nil
	}

	r.pins.Unpin()
}

func (s *shimSession) take() (*run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.closed {
		return nil, errClosed
	}

	s.running.Add(1)

	if n := len(s.idle); n > 0 {
		r := s.idle[n-1]
		s.idle = s.idle[:n-1]

		return r, nil
	}

	r := &run{}
	if st := C.sl_run_new(s.e.lib, s.c, &r.c); st != nil { //nolint:gocritic // code made by cgo
		s.running.Done()

		_, text := s.e.status(st)

		return nil, fmt.Errorf("prepare run: %s", text)
	}

	r.in = unsafe.Slice(r.c.in, len(s.inputs))
	r.out = unsafe.Slice(r.c.out, len(s.outputs))
	r.names = unsafe.Slice(r.c.out_names, len(s.outputs))

	return r, nil
}

func (s *shimSession) give(r *run) {
	defer s.running.Done()

	s.mu.Lock()
	keep := len(s.idle) < idleRuns
	if keep {
		s.idle = append(s.idle, r)
	}
	s.mu.Unlock()

	if !keep {
		C.sl_run_free(s.e.lib, r.c)
	}
}

// fill describes the inputs and the wanted outputs in the C block. What it checks is what
// memory safety needs; ONNX Runtime checks shapes against the graph.
func (s *shimSession) fill(r *run, in []engine.Tensor, outputs []string) error {
	if len(in) != len(s.inputs) {
		return fault.New(fault.BadTensor, "Expected %d inputs but got %d.", len(s.inputs), len(in))
	}

	for i := range in {
		if err := s.fillInput(r, i, &in[i]); err != nil {
			return err
		}
	}

	chosen, err := choose(s.outputs, outputs)
	if err != nil {
		return err
	}

	for i, j := range chosen {
		r.names[i] = s.outNames[j]
	}

	r.c.outputs = C.size_t(len(chosen))

	return nil
}

func (s *shimSession) fillInput(r *run, i int, t *engine.Tensor) error {
	n, err := checkInput(&s.inputs[i], t)
	if err != nil {
		return err
	}

	data := aligned(t)

	ct := &r.in[i]
	ct.elem = s.inTypes[i]
	ct.bytes, ct.count, ct.rank = C.size_t(len(data)), C.size_t(n), C.int64_t(len(t.Shape))
	ct.data = nil

	if len(data) > 0 {
		r.pins.Pin(&data[0])
		ct.data = unsafe.Pointer(&data[0])
	}

	for j, d := range t.Shape {
		ct.dims[j] = C.int64_t(d)
	}

	return nil
}

func (s *shimSession) results(r *run) []engine.Tensor {
	out := make([]engine.Tensor, int(r.c.outputs))
	rank := 0

	for i := range out {
		rank += int(r.out[i].rank)
	}

	shapes := make([]int64, 0, rank)

	for i := range out {
		ct := &r.out[i]
		t := &out[i]
		t.Name, t.Type = s.outputName(r.names[i]), dataType(int(ct.elem))

		if ct.rank > C.SL_MAX_RANK {
			t.Type = engine.Invalid

			continue
		}

		start := len(shapes)
		for _, d := range ct.dims[:ct.rank] {
			shapes = append(shapes, int64(d))
		}

		t.Shape = shapes[start:len(shapes):len(shapes)]

		size := int(ct.bytes)
		if t.Type != engine.Bytes {
			size = int(ct.count) * t.Type.Size()
		}

		if ct.data != nil {
			t.Data = unsafe.Slice((*byte)(ct.data), size)
		}
	}

	return out
}

func (s *shimSession) outputName(name *C.char) string {
	for i, n := range s.outNames {
		if n == name {
			return s.outputs[i].Name
		}
	}

	return ""
}

func (s *shimSession) runError(ctx context.Context, st *C.OrtStatus) error {
	_, text := s.e.status(st)

	return runError(ctx, text)
}

func flag(on bool) C.int { //nolint:revive // converts a bool
	if on {
		return 1
	}

	return 0
}
