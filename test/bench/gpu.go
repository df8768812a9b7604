package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/internal/ortlib"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

// gpuOptions are those of the part "gpu".
type gpuOptions struct {
	provider string
	device   int
	batch    int
	rows     int
	steps    int
	library  string
}

func (g *gpuOptions) flags(fs *flag.FlagSet) {
	const (
		batch = 64
		rows  = 4
		steps = 800
	)

	fs.StringVar(&g.provider, "provider", "cuda", "execution provider of the part gpu; nothing else will do: cuda, tensorrt, or cpu to try it without a GPU")
	fs.IntVar(&g.device, "device", 0, "device of the part gpu")
	fs.IntVar(&g.batch, "batch", batch, "rows in a batch of the part gpu")
	fs.IntVar(&g.rows, "rows", rows, "rows in a request of the part gpu")
	fs.IntVar(&g.steps, "steps", steps, "products of matrices in the model of the part gpu")
	fs.StringVar(&g.library, "onnxruntime", "", "libonnxruntime.so of the part gpu (default: $"+ortlib.Env+", or what make setup-gpu has fetched)")
}

func (g *gpuOptions) check() error {
	const most = 1024

	switch {
	case !slices.Contains([]string{"cuda", "tensorrt", "cpu"}, g.provider):
		return fmt.Errorf("-provider %s: want cuda, tensorrt or cpu", g.provider)
	case g.device < 0:
		return fmt.Errorf("-device %d: want 0 or more", g.device)
	case g.batch < 1 || g.batch > most || g.rows < 1 || g.rows > g.batch || g.steps < 1:
		return fmt.Errorf("-batch %d -rows %d -steps %d: want a batch of 1 to %d, requests that fit into it, and at least one step", g.batch, g.rows, g.steps, most)
	default:
		return nil
	}
}

// machine is what the part "gpu" needs to know of it.
type machine struct {
	gpus   func() bool
	getenv func(string) string
	root   string // of the repository
}

// here is this machine.
func here() machine {
	return machine{gpus: gpusHere, getenv: os.Getenv, root: ortlib.Here().WorkingDir}
}

// gpusHere looks for the devices of NVIDIA's driver, or asks the driver's own tool where they have other names.
func gpusHere() bool {
	if found, err := filepath.Glob("/dev/nvidia[0-9]*"); err == nil && len(found) > 0 {
		return true
	}

	out, err := exec.Command("nvidia-smi", "-L").Output() //nolint:noctx // ends at once

	return err == nil && strings.Contains(string(out), "GPU ")
}

const setupGPU = "run \"make setup-gpu\", or name the libonnxruntime.so of a CUDA build in " + ortlib.Env

// missing says in one line why there is nothing to measure, or "".
func (g *gpuOptions) missing(m machine) string {
	if g.provider == "cpu" {
		return ""
	}

	if !m.gpus() {
		return "there is no NVIDIA GPU here: no /dev/nvidia0, and nvidia-smi names none"
	}

	path, err := g.find(m)
	if err != nil {
		return fmt.Sprintf("%v; %s", err, setupGPU)
	}

	if path, err = filepath.EvalSymlinks(path); err != nil {
		return fmt.Sprintf("ONNX Runtime: %v", err)
	}

	provider := filepath.Join(filepath.Dir(path), "libonnxruntime_providers_"+g.provider+".so")
	if _, err := os.Stat(provider); errors.Is(err, os.ErrNotExist) {
		return fmt.Sprintf("ONNX Runtime %s has no %s beside it; %s", path, filepath.Base(provider), setupGPU)
	} else if err != nil {
		return fmt.Sprintf("ONNX Runtime: %v", err)
	}

	return ""
}

// find is the ONNX Runtime of the part "gpu", as an absolute path.
func (g *gpuOptions) find(m machine) (string, error) {
	path := firstOf(g.library, m.getenv(ortlib.Env))
	if path == "" && g.provider != "cpu" {
		path = filepath.Join(m.root, ortlib.GPUDir, ortlib.Name)
		if _, err := os.Stat(path); err != nil {
			path = ""
		}
	}

	if path == "" {
		found, err := (ortlib.Places{Getenv: m.getenv, WorkingDir: m.root}).Find()
		if err != nil {
			return "", err //nolint:wrapcheck // says everything
		}

		return found, nil
	}

	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("ONNX Runtime: %w", err)
	}

	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("ONNX Runtime: %w", err)
	}

	return abs, nil
}

// onDevice compares a worker with the bare loop on the same device at the same batch size, with one executor and with two.
func (b *bench) onDevice() error {
	g := b.gpu

	if why := g.missing(here()); why != "" {
		return skip("%s", why)
	}

	library, err := g.find(here())
	if err != nil {
		return err
	}

	work := onnxgen.Work(1, width, g.steps)

	var table [][]string

	for _, loops := range []int{1, 2} {
		v, err := b.contest(contest{
			name: fmt.Sprintf("%s-%d", g.provider, loops), model: work, loops: loops, batch: g.batch, rows: g.rows,
			provider: g.provider, device: g.device, library: library,
		})
		if err != nil {
			return err
		}

		b.report.hold(fmt.Sprintf("worker with %s, executors: %d: rows/s / bare loop's", g.provider, loops), mean(v.ours)/mean(v.bare), saturated, true)

		table = append(table, append([]string{g.provider, strconv.Itoa(g.device), strconv.Itoa(loops), strconv.Itoa(g.batch)}, v.cells(loops)...))
	}

	b.report.table(append([]string{"provider", "device", "executors", "batch"}, verdictColumns()...), table)
	b.report.text("A chain of products with a matrix of %d × %d, %d times, with the provider `%s` and nothing to fall back to (`strict`), on both sides: a worker over HTTP, "+
		"with requests of %d rows, and `BenchmarkBare` of `runtime/ort`, which runs the same model with the same batch and as many threads as the worker has executors, and does nothing else. %s",
		width, width, g.steps, g.provider, g.rows, howPressed)

	return nil
}
