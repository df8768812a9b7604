package ort

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// provider is an execution provider that a package can ask for.
type provider struct {
	name string
	// ort is the name in the library's list; named is the name for appending.
	ort, named string
	how        C.int
	// compiles tells that the provider makes code that an optimised model cannot hold.
	compiles bool
}

//nolint:gochecknoglobals // a constant table
var providers = []provider{
	{name: "cpu", ort: "CPUExecutionProvider"},
	{name: "cuda", ort: "CUDAExecutionProvider", how: C.SL_APPEND_CUDA},
	{name: "tensorrt", ort: "TensorrtExecutionProvider", how: C.SL_APPEND_TENSORRT, compiles: true},
	{name: "webgpu", ort: "WebGpuExecutionProvider", named: "WebGPU", how: C.SL_APPEND_NAMED, compiles: true},
	{name: "openvino", ort: "OpenVINOExecutionProvider", how: C.SL_APPEND_OPENVINO, compiles: true},
}

// providerOrder resolves names. "auto" stands for what is usually fastest, then the CPU; a
// list that does not end on the CPU falls back to it.
func providerOrder(names []string) ([]provider, error) {
	var order []provider

	add := func(name string) bool {
		i := slices.IndexFunc(providers, func(p provider) bool { return p.name == name })
		if i < 0 {
			return false
		}

		if !slices.ContainsFunc(order, func(p provider) bool { return p.name == name }) {
			order = append(order, providers[i])
		}

		return true
	}

	for _, n := range names {
		n = strings.ToLower(n)
		if n == "auto" {
			add("cuda")
			add("cpu")

			continue
		}

		if !add(n) {
			return nil, fault.New(fault.ModelInvalid,
				"The execution provider %q is not known; known are auto, cpu, cuda, openvino, tensorrt and webgpu.", n)
		}
	}

	add("cpu")

	return order, nil
}

// certain refuses a provider that is known not to be there. OpenVINO and TensorRT are separate
// libraries that the list does not know of; what is certain is only a provider that is built in.
func (e *Engine) certain(p provider) error {
	if p.how == C.SL_APPEND_NAMED && !slices.Contains(e.Available(), p.name) {
		return missing(p, "this ONNX Runtime is built without it.")
	}

	return nil
}

func missing(p provider, why string) error {
	return fault.New(fault.ModelInvalid, "The execution provider %q is not available: %s", p.name, why)
}

func (e *Engine) appendProvider(o *C.OrtSessionOptions, spec engine.LoadSpec, p provider) error {
	if err := e.certain(p); err != nil {
		return err
	}

	keys, values := providerOptions(spec, p)
	ckeys, cvalues := cStrings(keys), cStrings(values)

	defer freeStrings(ckeys)
	defer freeStrings(cvalues)

	name := C.CString(p.named)
	defer C.free(unsafe.Pointer(name))

	st := C.sl_append(e.lib, o, p.how, name, unsafe.SliceData(ckeys), unsafe.SliceData(cvalues), C.size_t(len(keys)))
	if st == nil {
		return nil
	}

	_, text := e.status(st)

	return missing(p, cleanText(text))
}

func providerOptions(spec engine.LoadSpec, p provider) (keys, values []string) {
	set := func(k, v string) { keys, values = append(keys, k), append(values, v) }

	switch p.name {
	case "cuda":
		set("device_id", strconv.Itoa(spec.DeviceID))
		set("arena_extend_strategy", "kSameAsRequested")

		if spec.ArenaLimitBytes > 0 {
			set("gpu_mem_limit", strconv.FormatInt(spec.ArenaLimitBytes, 10))
		}
	case "tensorrt":
		set("device_id", strconv.Itoa(spec.DeviceID))

		if spec.ArenaLimitBytes > 0 {
			set("trt_max_workspace_size", strconv.FormatInt(spec.ArenaLimitBytes, 10))
		}
	case "openvino":
		set("device_type", "CPU")
		set("num_of_threads", strconv.Itoa(max(1, spec.IntraOpThreads)))
	case "webgpu":
		set("deviceId", strconv.Itoa(spec.DeviceID))
	}

	return keys, values
}

func cStrings(in []string) []*C.char {
	out := make([]*C.char, len(in), len(in)+1)
	for i, s := range in {
		out[i] = C.CString(s)
	}

	return out
}

func freeStrings(in []*C.char) {
	for _, s := range in {
		C.free(unsafe.Pointer(s))
	}
}
