package ort

/*
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/ortlib"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// Config of an Engine.
type Config struct {
	// Library is the path of libonnxruntime.so; empty means where ortlib.Find finds it.
	Library string
}

// Engine is one opened ONNX Runtime library.
type Engine struct {
	lib     *C.sl_lib
	version string
	log     *slog.Logger
	close   sync.Once
}

var _ engine.Engine = (*Engine)(nil)

// New opens the library. It must be closed after all its sessions.
func New(cfg Config, log *slog.Logger) (*Engine, error) {
	path := cfg.Library
	if path == "" {
		found, err := ortlib.Find()
		if err != nil {
			return nil, fmt.Errorf("open ONNX Runtime: %w", err)
		}

		path = found
	}

	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))

	e := &Engine{log: log}
	if text := C.sl_open(cpath, &e.lib); text != nil { //nolint:gocritic // code made by cgo
		defer C.free(unsafe.Pointer(text))

		return nil, fmt.Errorf("open ONNX Runtime %s: %s", path, C.GoString(text))
	}

	if err := startBinding(path); err != nil {
		C.sl_close(e.lib)

		return nil, err
	}

	e.version = C.GoString(e.lib.version)

	return e, nil
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return "onnxruntime " + e.version }

// Close releases the environment; every session must be closed before.
func (e *Engine) Close() error {
	e.close.Do(func() { C.sl_close(e.lib) })

	return nil
}

// Available lists the providers that the library was built with, by our names.
func (e *Engine) Available() []string {
	var names **C.char

	n := C.sl_providers(e.lib, &names) //nolint:gocritic // code made by cgo
	defer C.sl_providers_free(e.lib, names, n)

	var out []string

	for _, p := range unsafe.Slice(names, int(n)) {
		full := C.GoString(p)
		for _, known := range providers {
			if known.ort == full {
				out = append(out, known.name)
			}
		}
	}

	return out
}

// Load implements engine.Engine.
func (e *Engine) Load(ctx context.Context, spec engine.LoadSpec) (engine.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load model: %w", err)
	}

	if st, err := os.Stat(spec.Path); err != nil || st.IsDir() {
		return nil, fault.Wrap(fault.ModelInvalid, err, "The model file %q cannot be read.", base(spec.Path))
	}

	order, err := providerOrder(spec.Providers)
	if err != nil {
		return nil, err
	}

	var first error

	for i, p := range order {
		s, err := e.loadApart(ctx, spec, p)
		if err == nil {
			if i > 0 {
				e.log.WarnContext(ctx, "execution provider not usable, fell back", slog.Any("wanted", order[0].name), slog.Any("used", p.name), slog.Any("reason", first.Error()))
			}

			return s, nil
		}

		// The CPU's opinion of a model is the one that tells what is wrong with the file.
		if first == nil || p.name == "cpu" {
			first = err
		}

		if spec.Strict || ctx.Err() != nil {
			break
		}
	}

	return nil, first
}

func (e *Engine) loadApart(ctx context.Context, spec engine.LoadSpec, p provider) (s engine.Session, err error) {
	err = apart(func() error {
		defer trim() // what optimising the graph left behind

		s, err = e.loadWith(ctx, spec, p)

		return err
	})

	return s, err
}

// open creates a session from file; with save it also writes the optimised graph there. The
// binding runs the model unless it has values that the binding cannot carry.
func (e *Engine) open(spec engine.LoadSpec, p provider, file, save string) (engine.Session, error) {
	h := readHead(file)
	if h.shimmed() {
		return e.openShim(spec, p, file, save)
	}

	f, err := e.look(spec, p, file, h)
	if err != nil {
		trim()

		return nil, err
	}

	if !f.bindable() {
		return e.openShim(spec, p, file, save)
	}

	return e.openBound(spec, p, f, file, save)
}

// openShim creates a session that the shim runs.
func (e *Engine) openShim(spec engine.LoadSpec, p provider, file, save string) (engine.Session, error) {
	options, err := e.options(spec, p, file, save)
	if err != nil {
		return nil, err
	}
	defer C.sl_options_free(e.lib, options)

	cfile := C.CString(file)
	defer C.free(unsafe.Pointer(cfile))

	var s *C.sl_session
	if st := C.sl_session_new(e.lib, cfile, options, &s); st != nil { //nolint:gocritic // code made by cgo
		trim()

		_, text := e.status(st)

		return nil, notLoaded(spec, p, file, text)
	}

	session, err := newSession(e, s, p.name)
	if err != nil {
		C.sl_session_free(e.lib, s)
		trim()

		return nil, err
	}

	return session, nil
}

func notLoaded(spec engine.LoadSpec, p provider, file, text string) error {
	return fault.New(fault.ModelInvalid, "The model %q cannot be loaded on %s: %s",
		base(spec.Path), p.name, cleanText(text, spec.Path, file))
}

// leaveOut says which outputs are left out, and refuses a model that has no others.
func (e *Engine) leaveOut(kept []engine.Info, skipped []string) error {
	if len(kept) == 0 {
		return fault.New(fault.ModelInvalid, "The model has no output that can be sent: %s.", strings.Join(skipped, ", "))
	}

	if len(skipped) > 0 {
		e.log.Warn("outputs that are not plain tensors are left out", slog.Any("outputs", strings.Join(skipped, ", ")))
	}

	return nil
}

func inputRefused(name string, kind, rank int) error {
	return fault.New(fault.ModelInvalid, "The model's input %q is a %s, which cannot be sent.", name, kindName(kind, rank))
}

// trim gives freed memory back to the system.
func trim() { C.sl_trim() }

func (e *Engine) options(spec engine.LoadSpec, p provider, file, save string) (*C.OrtSessionOptions, error) {
	o := C.sl_options{
		intra_threads: C.int(max(1, spec.IntraOpThreads)),
		inter_threads: C.int(max(1, spec.InterOpThreads)),
	}
	if spec.ArenaLimitBytes > 0 && p.name == "cpu" {
		o.no_arena = 1
	}

	if file == spec.Path {
		o.optimise = 1
	}

	if save != "" {
		o.save_optimised = C.CString(save)
		defer C.free(unsafe.Pointer(o.save_optimised))
	}

	var options *C.OrtSessionOptions
	if st := C.sl_options_new(e.lib, &o, &options); st != nil { //nolint:gocritic // code made by cgo
		_, text := e.status(st)

		return nil, fmt.Errorf("make session options: %s", text)
	}

	if p.name == "cpu" {
		return options, nil
	}

	if err := e.appendProvider(options, spec, p); err != nil {
		C.sl_options_free(e.lib, options)

		return nil, err
	}

	return options, nil
}

// status reads and releases a status.
func (e *Engine) status(st *C.OrtStatus) (int, string) {
	var code C.int

	text := C.sl_status(e.lib, st, &code)
	defer C.free(unsafe.Pointer(text))

	return int(code), strings.TrimSpace(C.GoString(text))
}

// cleanText makes a text of ONNX Runtime fit to show: base names for paths of ours, no
// source locations, one line, bounded.
func cleanText(text string, paths ...string) string {
	for _, p := range paths {
		text = strings.ReplaceAll(text, p, base(p))
	}

	if i := strings.Index(text, "Exception caught: "); i >= 0 {
		text = text[i+len("Exception caught: "):]
	}

	fields := slices.DeleteFunc(strings.Fields(text), func(w string) bool {
		return strings.HasPrefix(w, "/") && strings.Contains(w, "onnxruntime/")
	})

	const limit = 600

	text = strings.Join(fields, " ")
	if len(text) > limit {
		text = text[:limit] + "…"
	}

	return strings.ToValidUTF8(text, "?")
}

func base(path string) string {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[i+1:]
	}

	return path
}
