package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/ortlib"
)

const wheelLibrary = "onnxruntime/capi/libonnxruntime.so." + ortlib.Version

func sum(text string) string {
	h := sha256.Sum256([]byte(text))

	return hex.EncodeToString(h[:])
}

// world is a machine with the programs that a test puts on its PATH.
type world struct {
	t    *testing.T
	bin  string
	root string
	env  map[string]string
	out  bytes.Buffer
}

func newWorld(t *testing.T) *world {
	t.Helper()

	w := &world{t: t, bin: t.TempDir(), root: t.TempDir()}
	w.env = map[string]string{"PATH": w.bin}
	w.program("gcc", "")

	return w
}

func (w *world) program(name, script string) {
	w.t.Helper()
	w.file(filepath.Join(w.bin, name), "#!/bin/sh\n"+script+"\n", 0o700)
}

func (w *world) file(path, text string, mode os.FileMode) {
	w.t.Helper()

	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}

	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		w.t.Fatal(err)
	}
}

// npm installs an npm that packs a tarball with the given library.
func (w *world) npm(library string) {
	w.t.Helper()

	var buf bytes.Buffer

	zw := gzip.NewWriter(&buf)
	tw := tar.NewWriter(zw)

	for name, text := range map[string]string{"package/lib.so": library, "package/LICENSE": "MIT", "../escape": "x"} {
		if err := tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}); err != nil {
			w.t.Fatal(err)
		}

		if _, err := tw.Write([]byte(text)); err != nil {
			w.t.Fatal(err)
		}
	}

	if err := tw.Close(); err != nil {
		w.t.Fatal(err)
	}

	if err := zw.Close(); err != nil {
		w.t.Fatal(err)
	}

	ball := filepath.Join(w.bin, "ball")
	w.file(ball, buf.String(), 0o600)
	w.program("npm", `echo "$@" >>`+w.bin+`/npm.args; cp `+ball+` onnxruntime-node-1.30.0.tgz`)
}

// pip installs a pip that downloads a wheel.
func (w *world) pip(name string) {
	w.t.Helper()

	var buf bytes.Buffer

	zw := zip.NewWriter(&buf)

	for member, text := range map[string]string{wheelLibrary: "from pip", "onnxruntime/ThirdPartyNotices.txt": "many"} {
		f, err := zw.Create(member)
		if err != nil {
			w.t.Fatal(err)
		}

		if _, err := f.Write([]byte(text)); err != nil {
			w.t.Fatal(err)
		}
	}

	if err := zw.Close(); err != nil {
		w.t.Fatal(err)
	}

	wheel := filepath.Join(w.bin, "wheel")
	w.file(wheel, buf.String(), 0o600)
	w.program(name, `echo "$@" >>`+w.bin+`/pip.args; cp `+wheel+` onnxruntime.whl`)
}

func (w *world) args(client string) string {
	data, err := os.ReadFile(filepath.Join(w.bin, client+".args"))
	if err != nil {
		return ""
	}

	return string(data)
}

func (w *world) run() error {
	s := setup{
		root: w.root, os: "linux", arch: "amd64", out: &w.out, timeout: time.Minute,
		getenv: func(k string) string { return w.env[k] },
		pins: map[string]pin{"amd64": {
			npmMember: "package/lib.so", npmSHA256: sum("from npm"), platform: "manylinux_2_28_x86_64", pipSHA256: sum("from pip"),
		}},
	}

	return s.run(w.t.Context())
}

func (w *world) installed() string {
	data, err := os.ReadFile(filepath.Join(w.root, ortlib.Dir, ortlib.Name))
	if err != nil {
		return ""
	}

	return string(data)
}

// clean wants no working folder left.
func (w *world) clean() {
	w.t.Helper()

	left, err := filepath.Glob(filepath.Join(w.root, ortlib.Dir, "..", workPrefix+"*"))
	if err != nil || len(left) > 0 {
		w.t.Errorf("left behind: %v %v", left, err)
	}
}

func (w *world) fails(words ...string) {
	w.t.Helper()

	err := w.run()
	if err == nil {
		w.t.Fatalf("no error; it said %s", w.out.String())
	}

	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			w.t.Errorf("error %q does not say %q", err, word)
		}
	}

	if strings.Contains(err.Error(), "\n") {
		w.t.Errorf("error has several lines: %q", err)
	}

	if got := w.installed(); got != "" {
		w.t.Errorf("installed %q all the same", got)
	}

	w.clean()
}

func TestSetupFetchesWithNpmAndThenDoesNothing(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.npm("from npm")
	w.pip("pip3")

	for range 3 {
		if err := w.run(); err != nil {
			t.Fatal(err)
		}
	}

	if w.installed() != "from npm" || strings.Count(w.args("npm"), "\n") != 1 || w.args("pip") != "" {
		t.Errorf("installed %q; npm %q; pip %q", w.installed(), w.args("npm"), w.args("pip"))
	}

	if a := w.args("npm"); !strings.Contains(a, "--ignore-scripts") || !strings.Contains(a, "onnxruntime-node@1.30.0") {
		t.Errorf("npm was called with %s", a)
	}

	if text, err := os.ReadFile(filepath.Join(w.root, "third_party/onnxruntime/LICENSE")); err != nil || string(text) != "MIT" {
		t.Errorf("licence: %q, %v", text, err)
	}

	w.clean()
}

func TestSetupFetchesWithAnyPip(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"pip", "pip3", "python3"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w := newWorld(t)
			w.pip(name)

			if name == "python3" { // the same program answers python3 -c "import pip"
				w.program(name, `case $1 in -c) exit 0;; esac; echo "$@" >>`+w.bin+`/pip.args; cp `+w.bin+`/wheel onnxruntime.whl`)
			}

			if err := w.run(); err != nil {
				t.Fatal(err)
			}

			a := w.args("pip")
			if w.installed() != "from pip" || !strings.Contains(a, "--platform manylinux_2_28_x86_64") || !strings.Contains(a, "--no-deps") {
				t.Errorf("installed %q with %s", w.installed(), a)
			}

			w.clean()
		})
	}
}

func TestSetupFallsBackToPip(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.program("npm", "echo npm error network is down >&2; exit 1")
	w.pip("pip3")

	if err := w.run(); err != nil || w.installed() != "from pip" {
		t.Errorf("installed %q, %v", w.installed(), err)
	}
}

func TestSetupReplacesWhatIsNotTheLibrary(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.npm("from npm")
	w.file(filepath.Join(w.root, ortlib.Dir, ortlib.Name), "cut off", 0o600)

	if err := w.run(); err != nil || w.installed() != "from npm" || !strings.Contains(w.out.String(), "fetching it again") {
		t.Errorf("installed %q, %v; said %s", w.installed(), err, w.out.String())
	}
}

func TestSetupLeavesTheChoiceToTheUser(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.npm("from npm")
	w.env[ortlib.Env] = filepath.Join(w.root, "own.so")
	w.fails(ortlib.Env, "no such file")

	w.file(w.env[ortlib.Env], "own", 0o600)

	if err := w.run(); err != nil || w.installed() != "" || w.args("npm") != "" {
		t.Errorf("installed %q, %v", w.installed(), err)
	}
}

func TestSetupSaysInOneLineWhatIsMissing(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.fails("neither npm nor pip")

	w.env["CC"] = "my-cc -O2"
	w.fails("no C compiler (my-cc)")

	w.env["CC"] = ""
	if err := os.Remove(filepath.Join(w.bin, "gcc")); err != nil {
		t.Fatal(err)
	}

	w.fails("no C compiler", "install gcc")
}

func TestSetupSaysWhyNothingCouldBeFetched(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.program("npm", "echo npm error code ENOTFOUND >&2; echo npm error A complete log is here >&2; exit 1")
	w.program("pip3", "echo WARNING: retrying; echo ERROR: No matching distribution >&2; exit 1")
	w.fails("npm error code ENOTFOUND", "ERROR: No matching distribution", "network")

	w.program("npm", "exit 0")
	w.program("pip3", "echo rubbish > x.whl")
	w.fails("npm left 0 files", "read zip")

	w.program("npm", "printf nonsense > x.tgz")
	w.fails("read gzip")
}

func TestSetupRefusesAnotherLibrary(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.npm("tampered")
	w.pip("pip3")
	w.fails("SHA-256", sum("tampered"), sum("from npm"))

	if w.args("pip") != "" {
		t.Error("went on to another source after a wrong hash")
	}
}

func TestSetupLeavesNothingWhenInterrupted(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.program("npm", "echo part > half.tgz; touch "+w.bin+"/started; exec sleep 60")

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)

	go func() {
		s := setup{
			root: w.root, os: "linux", arch: "amd64", out: &w.out, timeout: time.Minute, pins: pinned(),
			getenv: func(k string) string { return w.env[k] },
		}
		done <- s.run(ctx)
	}()

	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()

	for range tick.C {
		if _, err := os.Stat(filepath.Join(w.bin, "started")); err == nil {
			break
		}
	}

	cancel()

	if err := <-done; err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("err = %v", err)
	}

	w.clean()
}

func TestSetupDropsFoldersOfKilledRuns(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.npm("from npm")

	base := filepath.Join(w.root, "third_party/onnxruntime")
	old, young := filepath.Join(base, workPrefix+"old"), filepath.Join(base, workPrefix+"young")
	w.file(filepath.Join(old, "x"), "x", 0o600)
	w.file(filepath.Join(young, "x"), "x", 0o600)

	past := time.Now().Add(-2 * staleAfter)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}

	if err := w.run(); err != nil {
		t.Fatal(err)
	}

	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("old folder: %v", err)
	}

	if _, err := os.Stat(young); err != nil {
		t.Errorf("the folder of a run in progress: %v", err)
	}
}

func TestPinsAreComplete(t *testing.T) {
	t.Parallel()

	for _, arch := range []string{"amd64", "arm64"} {
		p := pinned()[arch]
		if len(p.npmSHA256) != 64 || len(p.pipSHA256) != 64 || p.npmMember == "" || p.platform == "" {
			t.Errorf("%s: %+v", arch, p)
		}
	}

	s := setup{os: "plan9", arch: "386", out: &bytes.Buffer{}, getenv: func(k string) string {
		return map[string]string{"CC": os.Args[0]}[k]
	}}
	if err := s.run(t.Context()); err == nil || !strings.Contains(err.Error(), "plan9/386") {
		t.Errorf("err = %v", err)
	}
}

// gpu is a run for the build with CUDA, out of a wheel with these members.
func (w *world) gpu(wheel map[string]string) error {
	w.t.Helper()

	var buf bytes.Buffer

	zw := zip.NewWriter(&buf)

	for member, text := range wheel {
		f, err := zw.Create(member)
		if err == nil {
			_, err = f.Write([]byte(text))
		}

		if err != nil {
			w.t.Fatal(err)
		}
	}

	if err := zw.Close(); err != nil {
		w.t.Fatal(err)
	}

	file := filepath.Join(w.bin, "wheel-gpu")
	w.file(file, buf.String(), 0o600)
	w.program("pip3", `echo "$@" >>`+w.bin+`/pip.args; cp `+file+` onnxruntime_gpu.whl`)

	s := setup{
		root: w.root, gpu: true, os: "linux", arch: "amd64", out: &w.out, timeout: time.Minute, pins: pinned(),
		getenv: func(k string) string { return w.env[k] },
		gpuPins: map[string]gpuPin{"amd64": {platform: "manylinux_2_28_x86_64", sha256: map[string]string{
			ortlib.Name: sum("core"), providersShared: sum("shared"), providerCUDA: sum("cuda"),
		}}},
	}

	return s.run(w.t.Context())
}

func TestSetupFetchesTheBuildWithCUDA(t *testing.T) {
	t.Parallel()

	const capi = "onnxruntime/capi/"

	w := newWorld(t)
	wheel := map[string]string{wheelLibrary: "core", capi + providersShared: "shared", capi + providerCUDA: "cuda", "onnxruntime/LICENSE": "MIT"}

	for range 2 {
		if err := w.gpu(wheel); err != nil {
			t.Fatal(err)
		}
	}

	if a := w.args("pip"); strings.Count(a, "\n") != 1 || !strings.Contains(a, "onnxruntime-gpu=="+ortlib.Version) || !strings.Contains(a, "--no-deps") {
		t.Errorf("pip was called with %s", a)
	}

	for name, want := range map[string]string{ortlib.Name: "core", providersShared: "shared", providerCUDA: "cuda", "../LICENSE": "MIT"} {
		if got, err := os.ReadFile(filepath.Join(w.root, ortlib.GPUDir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}

	if got := w.installed(); got != "" {
		t.Errorf("the usual build is %q", got)
	}

	// A provider that was cut off is noticed.
	w.file(filepath.Join(w.root, ortlib.GPUDir, providerCUDA), "cu", 0o600)

	if err := w.gpu(wheel); err != nil || strings.Count(w.args("pip"), "\n") != 2 {
		t.Errorf("a damaged provider: %v, pip %s", err, w.args("pip"))
	}

	for name, change := range map[string]func(map[string]string){
		"SHA-256":                func(m map[string]string) { m[capi+providerCUDA] = "tampered" },
		"has no " + capi:         func(m map[string]string) { delete(m, capi+providersShared) },
		"has no " + wheelLibrary: func(m map[string]string) { delete(m, wheelLibrary) },
	} {
		w := newWorld(t)
		bad := maps.Clone(wheel)
		change(bad)

		if err := w.gpu(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}

		if _, err := os.Stat(filepath.Join(w.root, ortlib.GPUDir, ortlib.Name)); !os.IsNotExist(err) {
			t.Errorf("%s: the library is there: %v", name, err)
		}
	}
}

func TestSetupChecksAnOwnBuildWithCUDA(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.env[ortlib.Env] = filepath.Join(w.root, "own", "libonnxruntime.so")
	w.file(w.env[ortlib.Env], "own", 0o600)

	if err := w.gpu(nil); err == nil || !strings.Contains(err.Error(), providerCUDA) {
		t.Errorf("a build without CUDA: %v", err)
	}

	w.file(filepath.Join(w.root, "own", providerCUDA), "cuda", 0o600)

	if err := w.gpu(nil); err != nil || w.args("pip") != "" {
		t.Errorf("a build with CUDA: %v, pip %s", err, w.args("pip"))
	}

	for arch, p := range pinnedGPU() {
		if p.platform == "" || len(p.sha256) != 4 || len(p.sha256[ortlib.Name]) != 64 {
			t.Errorf("%s: %+v", arch, p)
		}
	}
}
