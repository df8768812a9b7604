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
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

var errClosed = errors.New("session is closed")

// Run implements engine.Session.
func (s *Session) Run(ctx context.Context, in []engine.Tensor, outputs []string) ([]engine.Tensor, func(), error) {
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

	finish := s.watch(ctx, r)
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

// watch terminates the run when ctx ends. The returned function stops watching and makes
// the block usable again.
func (s *Session) watch(ctx context.Context, r *run) (finish func()) {
	if ctx.Done() == nil {
		return func() {}
	}

	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		C.sl_run_terminate(s.e.lib, r.c, 1)
		close(ended)
	})

	return func() {
		if !stop() {
			<-ended
			C.sl_run_terminate(s.e.lib, r.c, 0)
		}
	}
}

func (s *Session) take() (*run, error) {
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

func (s *Session) give(r *run) {
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
func (s *Session) fill(r *run, in []engine.Tensor, outputs []string) error {
	if len(in) != len(s.inputs) {
		return fault.New(fault.BadTensor, "Expected %d inputs but got %d.", len(s.inputs), len(in))
	}

	for i := range in {
		if err := s.fillInput(r, i, &in[i]); err != nil {
			return err
		}
	}

	if len(outputs) == 0 {
		r.c.outputs = C.size_t(copy(r.names, s.outNames))

		return nil
	}

	if len(outputs) > len(s.outputs) {
		return fault.New(fault.BadTensor, "%d outputs are wanted, the model has %d.", len(outputs), len(s.outputs))
	}

	for i, name := range outputs {
		j := slices.IndexFunc(s.outputs, func(o engine.Info) bool { return o.Name == name })
		if j < 0 {
			return fault.New(fault.BadTensor, "The model has no output %q.", name)
		}

		r.names[i] = s.outNames[j]
	}

	r.c.outputs = C.size_t(len(outputs))

	return nil
}

func (s *Session) fillInput(r *run, i int, t *engine.Tensor) error {
	want := &s.inputs[i]
	if t.Type != want.Type {
		return fault.New(fault.BadTensor, "Input %q has the type %s, the model expects %s.", want.Name, t.Type, want.Type)
	}

	n := engine.Elements(t.Shape)
	if n < 0 || len(t.Shape) > C.SL_MAX_RANK {
		return fault.New(fault.BadTensor, "Input %q has the impossible shape %v.", want.Name, t.Shape)
	}

	size := t.Type.Size()
	if t.Type == engine.Bytes && !validBytes(t.Data, n) || t.Type != engine.Bytes && int64(len(t.Data)) != n*int64(size) {
		return fault.New(fault.BadTensor, "Input %q holds %d bytes, which is not what the shape %v of %s takes.",
			want.Name, len(t.Data), t.Shape, t.Type)
	}

	data := t.Data
	if size > 1 && uintptr(unsafe.Pointer(unsafe.SliceData(data)))%uintptr(size) != 0 {
		data = slices.Clone(data) // the heap aligns to 8 and more
	}

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

// validBytes reports whether data is exactly n length-prefixed elements.
func validBytes(data []byte, n int64) bool {
	for ; n > 0; n-- {
		if len(data) < 4 {
			return false
		}

		size := int64(binary.LittleEndian.Uint32(data))
		if size > int64(len(data)-4) {
			return false
		}

		data = data[4+size:]
	}

	return len(data) == 0
}

func (s *Session) results(r *run) []engine.Tensor {
	out := make([]engine.Tensor, int(r.c.outputs))
	rank := 0

	for i := range out {
		rank += int(r.out[i].rank)
	}

	shapes := make([]int64, 0, rank)

	for i := range out {
		ct := &r.out[i]
		t := &out[i]
		t.Name, t.Type = s.outputName(r.names[i]), dataType(ct.elem)

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

func (s *Session) outputName(name *C.char) string {
	for i, n := range s.outNames {
		if n == name {
			return s.outputs[i].Name
		}
	}

	return ""
}

// runError classifies a failed run. ONNX Runtime says "fail" for inputs that an operator
// cannot work on as well as for itself being out of memory; only the text tells.
func (s *Session) runError(ctx context.Context, st *C.OrtStatus) error {
	code, text := s.e.status(st)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("run model: %w", err)
	}

	text = cleanText(text)

	for _, own := range []string{"allocate memory", "bad_alloc", "bad allocation", "out of memory", "CUDA", "CUDNN", "CUBLAS"} {
		if strings.Contains(text, own) {
			return fault.Wrap(fault.BackendFailed, fmt.Errorf("onnxruntime code %d: %s", code, text),
				"The model could not be run.")
		}
	}

	return fault.New(fault.BadTensor, "The model cannot work on this input: %s", text)
}
