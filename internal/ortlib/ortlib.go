// Package ortlib finds the shared library of ONNX Runtime. "make setup" puts it where Find
// looks; Env names another one.
package ortlib

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	// Env names the library to use instead of the one that set-up fetches.
	Env = "ONNXRUNTIME_LIB"
	// Version is what set-up fetches.
	Version = "1.30.0"
	// Dir is where set-up puts the library, from the module root.
	Dir = "third_party/onnxruntime/lib"
	// GPUDir is where set-up puts the build with CUDA when it is asked for that. Find does not look there.
	GPUDir = "third_party/onnxruntime-gpu/lib"
	// Name is the file in Dir and GPUDir.
	Name = "libonnxruntime.so.1"

	module = "module github.com/sluice-gateway/sluice"
)

// ErrNotFound means that no library stands at any place that Find knows.
var ErrNotFound = errors.New("libonnxruntime is not found; run \"make setup\" or set " + Env)

// Places are where Find looks; Here describes the running process.
type Places struct {
	Getenv     func(string) string
	Executable string // path of the running binary
	WorkingDir string
	System     []string // directories of the system's loader
}

// Here is the running process.
func Here() Places {
	exe, err := os.Executable()
	if err == nil {
		if target, err := filepath.EvalSymlinks(exe); err == nil {
			exe = target
		}
	}

	dir, err := os.Getwd()
	if err != nil {
		dir = ""
	}

	return Places{Getenv: os.Getenv, Executable: exe, WorkingDir: dir, System: systemDirs()}
}

// Find returns the absolute path of the library for the running process.
func Find() (string, error) { return Here().Find() }

// Find looks at, in this order: the file that Env names (and nowhere else when it is set);
// ../third_party/onnxruntime/lib and lib beside the executable; third_party in the module
// that holds the working directory, which is how tests find it; the directories of
// LD_LIBRARY_PATH and of the system.
func (p Places) Find() (string, error) {
	if path := p.Getenv(Env); path != "" {
		return p.named(path)
	}

	var tried []string

	for _, path := range p.candidates() {
		if isFile(path) {
			return filepath.Abs(path)
		}

		tried = append(tried, filepath.Dir(path))
	}

	return "", fmt.Errorf("%w (looked in %s)", ErrNotFound, strings.Join(dedupe(tried), ", "))
}

func (p Places) named(path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(p.WorkingDir, path)
	}

	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", Env, err)
	}

	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: %s is not a file: %w", Env, path, fs.ErrInvalid)
	}

	return path, nil
}

func (p Places) candidates() []string {
	var paths []string

	if p.Executable != "" {
		dir := filepath.Dir(p.Executable)
		paths = append(paths, filepath.Join(dir, "..", Dir, Name), filepath.Join(dir, "lib", Name))
	}

	if root := moduleRoot(p.WorkingDir); root != "" {
		paths = append(paths, filepath.Join(root, Dir, Name))
	}

	dirs := filepath.SplitList(p.Getenv("LD_LIBRARY_PATH"))
	for _, dir := range append(dirs, p.System...) {
		if dir != "" {
			paths = append(paths, filepath.Join(dir, Name), filepath.Join(dir, "libonnxruntime.so"))
		}
	}

	return paths
}

// moduleRoot is the directory of this module's go.mod at or above dir, "" if there is none.
func moduleRoot(dir string) string {
	if dir == "" {
		return ""
	}

	for {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(data), module+"\n") {
			return dir
		}

		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}

		dir = up
	}
}

func systemDirs() []string {
	dirs := []string{"/usr/local/lib", "/usr/local/lib64"}

	switch runtime.GOARCH {
	case "amd64":
		dirs = append(dirs, "/usr/lib/x86_64-linux-gnu")
	case "arm64":
		dirs = append(dirs, "/usr/lib/aarch64-linux-gnu")
	}

	return append(dirs, "/usr/lib64", "/usr/lib")
}

func isFile(path string) bool {
	info, err := os.Stat(path)

	return err == nil && info.Mode().IsRegular()
}

func dedupe(in []string) []string {
	seen := make(map[string]bool, len(in))
	out := in[:0]

	for _, s := range in {
		if !seen[s] {
			seen[s] = true

			out = append(out, s)
		}
	}

	return out
}
