package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/ortlib"
)

// pin is what the two package clients ship for one architecture.
type pin struct {
	npmMember string // library in the npm tarball
	npmSHA256 string
	platform  string // pip's name of the platform
	pipSHA256 string
}

// pinned holds the SHA-256 of the libraries of ONNX Runtime 1.30.0, by GOARCH.
func pinned() map[string]pin {
	return map[string]pin{
		"amd64": {
			npmMember: "package/bin/napi-v6/linux/x64/libonnxruntime.so.1",
			npmSHA256: "ffb75a925ba05e47b235bb66e3e3911714a80b328a9c9425539feb204aa32a23",
			platform:  "manylinux_2_28_x86_64",
			pipSHA256: "c902c70b3003c0e99fada202f37478c515ae9bba7944c2b2abd0017bae0c82ed",
		},
		"arm64": {
			npmMember: "package/bin/napi-v6/linux/arm64/libonnxruntime.so.1",
			npmSHA256: "1f549d46250b005580b597f4164984aaf75b3bcb9f3aeb07c7f8a8fe60b23c76",
			platform:  "manylinux_2_28_aarch64",
			pipSHA256: "8a218e1e446880131115c368ec7005969a5022af9a15a26173de648fef0b7789",
		},
	}
}

// setup is one run.
type setup struct {
	root    string
	gpu     bool // the build with CUDA, beside the usual one
	os      string
	arch    string
	pins    map[string]pin
	gpuPins map[string]gpuPin
	getenv  func(string) string
	out     io.Writer
	timeout time.Duration
}

// staleAfter is when the folder of an interrupted fetch is certainly nobody's any more.
const staleAfter = time.Hour

func (s *setup) run(ctx context.Context) error {
	if err := s.checkCompiler(); err != nil {
		return err
	}

	if own := s.getenv(ortlib.Env); own != "" {
		path, err := (ortlib.Places{Getenv: s.getenv, WorkingDir: s.root}).Find()
		if err != nil {
			return fmt.Errorf("find ONNX Runtime: %w", err)
		}

		if s.gpu {
			if err := checkCUDA(path); err != nil {
				return err
			}
		}

		return s.sayf("ONNX Runtime: %s (from %s)", path, ortlib.Env)
	}

	if s.gpu {
		return s.runGPU(ctx)
	}

	want, ok := s.pins[s.arch]
	if !ok || s.os != "linux" {
		return fmt.Errorf("no ONNX Runtime is pinned for %s/%s; install version %s yourself and set %s to the library",
			s.os, s.arch, ortlib.Version, ortlib.Env)
	}

	target := filepath.Join(s.root, ortlib.Dir, ortlib.Name)

	switch sum, err := fileSHA256(target); {
	case err == nil && (sum == want.npmSHA256 || sum == want.pipSHA256):
		return s.sayf("ONNX Runtime %s is in place", ortlib.Version)
	case err == nil:
		if err := s.sayf("%s is not ONNX Runtime %s for %s; fetching it again", target, ortlib.Version, s.arch); err != nil {
			return err
		}
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("read the library in place: %w", err)
	}

	sources := s.sources(ctx, want)
	if len(sources) == 0 {
		return errors.New("neither npm nor pip is on PATH; install one of them, or set " + ortlib.Env + " to a libonnxruntime.so of version " + ortlib.Version)
	}

	return s.fetch(ctx, sources, target)
}

// fetch tries one source after the other. The library appears at target complete and checked, or not at all.
func (s *setup) fetch(ctx context.Context, sources []source, target string) error {
	base := filepath.Dir(filepath.Dir(target))
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil { //nolint:gosec // a library that every user may load
		return fmt.Errorf("make room for the library: %w", err)
	}

	removeStale(base)

	var failed []string

	for _, src := range sources {
		if err := s.sayf("fetching %s with %s", src.title(), src.name); err != nil {
			return err
		}

		err := s.fetchFrom(ctx, src, base, target)
		if err == nil {
			return s.sayf("%s is now in %s", src.title(), filepath.Dir(target))
		}

		if ctx.Err() != nil {
			return errors.New("interrupted; nothing was installed")
		}

		var mismatch *hashError
		if errors.As(err, &mismatch) {
			return err // whoever serves another file is not to be worked around
		}

		failed = append(failed, src.name+": "+err.Error())
	}

	return errors.New("cannot fetch ONNX Runtime: " + strings.Join(failed, "; ") +
		"; is there a network? You may also set " + ortlib.Env)
}

func (s *setup) fetchFrom(ctx context.Context, src source, base, target string) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()

	work, err := os.MkdirTemp(base, workPrefix)
	if err != nil {
		return fmt.Errorf("make a working folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }() // what is left is removed by the next run

	archive, err := s.download(ctx, src, work)
	if err != nil {
		return err
	}

	found, err := src.unpack(archive, work, src.members)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(archive), err)
	}

	library, ok := found[src.library]
	if !ok {
		return fmt.Errorf("%s has no %s", filepath.Base(archive), src.library)
	}

	if err := verify(library, src.sha256); err != nil {
		return err
	}

	for member, sum := range src.beside {
		path, ok := found[member]
		if !ok {
			return fmt.Errorf("%s has no %s", filepath.Base(archive), member)
		}

		if err := verify(path, sum); err != nil {
			return err
		}

		if err := place(path, filepath.Join(filepath.Dir(target), src.members[member])); err != nil {
			return err
		}
	}

	for member, name := range src.members {
		path, ok := found[member]
		if _, lib := src.beside[member]; !ok || lib || member == src.library {
			continue
		}

		if err := os.Rename(path, filepath.Join(base, name)); err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
	}

	return place(library, target)
}

// place moves a library to where it belongs.
func place(path, target string) error {
	if err := os.Chmod(path, 0o755); err != nil { //nolint:gosec // a shared library
		return fmt.Errorf("make the library readable: %w", err)
	}

	if err := os.Rename(path, target); err != nil {
		return fmt.Errorf("move the library to its place: %w", err)
	}

	return nil
}

const workPrefix = ".fetch-"

// removeStale drops folders of fetches that were killed.
func removeStale(base string) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return
	}

	for _, e := range entries {
		info, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), workPrefix) && time.Since(info.ModTime()) > staleAfter {
			_ = os.RemoveAll(filepath.Join(base, e.Name())) // only wastes room; the next run tries again
		}
	}
}

// checkCompiler wants a C compiler, because the runtime binary uses cgo.
func (s *setup) checkCompiler() error {
	names := []string{"gcc", "clang", "cc"}
	if cc := strings.Fields(s.getenv("CC")); len(cc) > 0 {
		names = cc[:1]
	}

	for _, name := range names {
		if s.look(name) != "" {
			return nil
		}
	}

	return fmt.Errorf("no C compiler (%s) on PATH; install gcc, which building sluice-runtime needs", strings.Join(names, ", "))
}

// look finds a program on PATH; "" when it is not there.
func (s *setup) look(name string) string {
	if strings.ContainsRune(name, filepath.Separator) {
		if isProgram(name) {
			return name
		}

		return ""
	}

	for _, dir := range filepath.SplitList(s.getenv("PATH")) {
		if dir == "" {
			continue
		}

		if path := filepath.Join(dir, name); isProgram(path) {
			return path
		}
	}

	return ""
}

func isProgram(path string) bool {
	info, err := os.Stat(path)

	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func (s *setup) sayf(format string, args ...any) error {
	if _, err := fmt.Fprintf(s.out, "setup: "+format+"\n", args...); err != nil {
		return fmt.Errorf("report progress: %w", err)
	}

	return nil
}
