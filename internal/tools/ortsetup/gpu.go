package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sluice-gateway/sluice/internal/ortlib"
)

// The build with CUDA is a library and, beside it, those that it opens when a model asks for them.
const (
	providersShared = "libonnxruntime_providers_shared.so"
	providerCUDA    = "libonnxruntime_providers_cuda.so"
	providerTRT     = "libonnxruntime_providers_tensorrt.so"
)

// gpuPin is the wheel onnxruntime-gpu for one architecture.
type gpuPin struct {
	platform string
	sha256   map[string]string // by file name in our folder
}

// pinnedGPU holds the SHA-256 of the libraries of onnxruntime-gpu 1.30.0, which is built for CUDA 13 and cuDNN 9.
func pinnedGPU() map[string]gpuPin {
	return map[string]gpuPin{
		"amd64": {
			platform: "manylinux_2_28_x86_64",
			sha256: map[string]string{
				ortlib.Name:     "5a140dc17c8b60b35b2ceab0bb533e65ac54f06a208948417c1f9c31df6afc4c",
				providersShared: "086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d",
				providerCUDA:    "35da2e7ed0dd0d1aec5cdb16ce11a51d06c0c48cf62d1b1c9332946a4fae14fc",
				providerTRT:     "4365c6412845f42d7de138055ad3dcff5d0fbca2d748e30e8a04aa3ab0643337",
			},
		},
	}
}

// runGPU fetches the build with CUDA into a folder of its own. CUDA and cuDNN themselves are the operator's.
func (s *setup) runGPU(ctx context.Context) error {
	want, ok := s.gpuPins[s.arch]
	if !ok || s.os != "linux" {
		return fmt.Errorf("no ONNX Runtime with CUDA is pinned for %s/%s; install version %s yourself and set %s to the library",
			s.os, s.arch, ortlib.Version, ortlib.Env)
	}

	dir := filepath.Join(s.root, ortlib.GPUDir)

	there, err := inPlace(dir, want.sha256)
	if err != nil {
		return err
	}

	if there {
		return s.sayf("ONNX Runtime %s with CUDA is in place", ortlib.Version)
	}

	pip := s.pip(ctx)
	if len(pip) == 0 {
		return errors.New("pip is not on PATH; install it, or set " + ortlib.Env + " to a libonnxruntime.so of version " + ortlib.Version +
			" with " + providerCUDA + " beside it")
	}

	return s.fetch(ctx, []source{want.source(pip)}, filepath.Join(dir, ortlib.Name))
}

func (p *gpuPin) source(pip []string) source {
	const (
		capi    = "onnxruntime/capi/"
		library = capi + "libonnxruntime.so." + ortlib.Version
	)

	src := source{
		name: "pip", what: "with CUDA", argv: wheel(pip, p.platform, "onnxruntime-gpu"), pattern: "*.whl",
		library: library, sha256: p.sha256[ortlib.Name], beside: map[string]string{},
		members: map[string]string{
			library:                             ortlib.Name,
			"onnxruntime/LICENSE":               "LICENSE",
			"onnxruntime/ThirdPartyNotices.txt": "ThirdPartyNotices.txt",
		},
		unpack: unzip,
	}

	for name, sum := range p.sha256 {
		if name != ortlib.Name {
			src.members[capi+name], src.beside[capi+name] = name, sum
		}
	}

	return src
}

// inPlace reports whether dir holds exactly these files.
func inPlace(dir string, sums map[string]string) (bool, error) {
	for name, want := range sums {
		switch sum, err := fileSHA256(filepath.Join(dir, name)); {
		case errors.Is(err, os.ErrNotExist):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("read the library in place: %w", err)
		case sum != want:
			return false, nil
		}
	}

	return true, nil
}

// checkCUDA looks for the provider beside a library of the operator's own.
func checkCUDA(library string) error {
	library, err := filepath.EvalSymlinks(library)
	if err != nil {
		return fmt.Errorf("find ONNX Runtime: %w", err)
	}

	if _, err := os.Stat(filepath.Join(filepath.Dir(library), providerCUDA)); err != nil {
		return fmt.Errorf("ONNX Runtime of %s has no CUDA: %w", ortlib.Env, err)
	}

	return nil
}
