package ort

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// loadWith loads a model on a provider, from its optimised form where that is kept.
func (e *Engine) loadWith(ctx context.Context, spec engine.LoadSpec, p provider) (engine.Session, error) {
	cached := optimisedPath(spec.OptimizedModelPath, e.version, p)
	if cached == "" {
		return e.open(spec, p, spec.Path, "")
	}

	s, err := e.openKept(spec, p, cached)
	if err == nil {
		return s, nil
	}

	if !errors.Is(err, fs.ErrNotExist) {
		e.log.WarnContext(ctx, "optimised model not usable, made again", slog.Any("file", base(cached)), slog.Any("reason", err.Error()))
	}

	temp, err := os.CreateTemp(filepath.Dir(cached), base(cached)+".*.tmp")
	if err != nil {
		e.log.WarnContext(ctx, "optimised model not kept", slog.Any("file", base(cached)), slog.Any("reason", err.Error()))

		return e.open(spec, p, spec.Path, "")
	}

	defer os.Remove(temp.Name()) //nolint:errcheck // gone already when all went well

	if s, err = e.open(spec, p, spec.Path, temp.Name()); err != nil {
		// Some models load and cannot be written; they go without the cache.
		e.log.WarnContext(ctx, "optimised model not kept", slog.Any("file", base(cached)), slog.Any("reason", err.Error()))

		return e.open(spec, p, spec.Path, "")
	}

	if err := errors.Join(temp.Close(), keep(temp.Name(), cached)); err != nil {
		e.log.WarnContext(ctx, "optimised model not kept", slog.Any("file", base(cached)), slog.Any("reason", err.Error()))
	}

	return s, nil
}

// openKept opens the optimised form of a model that is what it was when it was kept.
func (e *Engine) openKept(spec engine.LoadSpec, p provider, cached string) (engine.Session, error) {
	want, err := os.ReadFile(cached + hashSuffix)
	if err != nil {
		return nil, fmt.Errorf("read the hash: %w", err)
	}

	got, err := hashOf(cached)
	if err != nil {
		return nil, err
	}

	if got != string(want) {
		return nil, errors.New("it is damaged")
	}

	s, err := e.open(spec, p, cached, "")
	if err != nil {
		return nil, err
	}

	now := time.Now() // the oldest go first when there are too many
	if err := os.Chtimes(cached, now, now); err != nil {
		e.log.Warn("use of an optimised model not noted", slog.Any("error", err))
	}

	return s, nil
}

// hashSuffix is what follows the name of a kept model in the name of the file with its SHA-256.
const hashSuffix = ".sha256"

// keep moves a file to its place, its hash last: without it nothing is used.
func keep(temp, path string) error {
	hash, err := hashOf(temp)
	if err != nil {
		return err
	}

	if err := os.Remove(path + hashSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep model: %w", err)
	}

	note := temp + hashSuffix
	if err := os.WriteFile(note, []byte(hash), 0o600); err != nil {
		return fmt.Errorf("keep model: %w", err)
	}

	if err := errors.Join(os.Rename(temp, path), os.Rename(note, path+hashSuffix)); err != nil {
		return fmt.Errorf("keep model: %w", err)
	}

	return nil
}

func hashOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("hash model: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read

	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("hash model: %w", err)
	}

	return hex.EncodeToString(h.Sum(nil)), nil
}

// optimisedPath names the file by everything that the optimised graph depends on beside the model: the
// library, the provider, and the processor, whose instructions decide about layouts.
func optimisedPath(path, version string, p provider) string {
	if path == "" || p.compiles {
		return ""
	}

	return fmt.Sprintf("%s-%s-%s-%s.onnx", path, version, processor(), p.name)
}

// processor tells one kind of processor from another.
//
//nolint:gochecknoglobals // it does not change
var processor = sync.OnceValue(func() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}

	h := sha256.New()

	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")

		switch strings.TrimSpace(key) {
		case "model name", "flags", "Features", "CPU part":
			_, _ = io.WriteString(h, value)
		case "": // the others are of the same kind
			return hex.EncodeToString(h.Sum(nil)[:4])
		}
	}

	return hex.EncodeToString(h.Sum(nil)[:4])
})
