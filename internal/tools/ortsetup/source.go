package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/ortlib"
)

// maxMember bounds one unpacked file; the library has 29 to 47 MB, that for CUDA 272.
const maxMember = 512 << 20

// source is a package client that can bring the library.
type source struct {
	name    string
	argv    []string
	pattern string            // what the client leaves in the working folder
	library string            // member that is the library
	sha256  string            // of the library
	beside  map[string]string // SHA-256 of the members that are libraries too
	what    string            // "" for the usual build
	members map[string]string // members to take out, and their file names
	unpack  func(archive, dir string, members map[string]string) (map[string]string, error)
}

// title names what comes.
func (s *source) title() string {
	if s.what != "" {
		return "ONNX Runtime " + ortlib.Version + " " + s.what
	}

	return "ONNX Runtime " + ortlib.Version
}

// sources lists the clients that are on PATH, in the order in which to try them.
func (s *setup) sources(ctx context.Context, want pin) []source {
	var out []source

	if npm := s.look("npm"); npm != "" {
		out = append(out, source{
			name: "npm",
			// pack downloads the tarball and runs none of the package's scripts.
			argv:    []string{npm, "pack", "--silent", "--ignore-scripts", "onnxruntime-node@" + ortlib.Version},
			pattern: "*.tgz",
			library: want.npmMember,
			sha256:  want.npmSHA256,
			members: map[string]string{
				want.npmMember:                  ortlib.Name,
				"package/LICENSE":               "LICENSE",
				"package/ThirdPartyNotices.txt": "ThirdPartyNotices.txt",
				"package/package.json":          "package.json", // names licence and origin
			},
			unpack: untar,
		})
	}

	if pip := s.pip(ctx); len(pip) > 0 {
		const library = "onnxruntime/capi/libonnxruntime.so." + ortlib.Version

		out = append(out, source{
			name: "pip",
			// The library is the same in the wheels of every Python; naming one makes any pip
			// willing to download it, whatever Python it runs on.
			argv:    wheel(pip, want.platform, "onnxruntime"),
			pattern: "*.whl",
			library: library,
			sha256:  want.pipSHA256,
			members: map[string]string{
				library:                             ortlib.Name,
				"onnxruntime/LICENSE":               "LICENSE",
				"onnxruntime/ThirdPartyNotices.txt": "ThirdPartyNotices.txt",
			},
			unpack: unzip,
		})
	}

	return out
}

// wheel is the command that downloads a wheel into the working folder.
func wheel(pip []string, platform, name string) []string {
	return append(pip, "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:",
		"--implementation", "cp", "--python-version", "3.12", "--abi", "cp312", "--platform", platform,
		"--dest", ".", name+"=="+ortlib.Version)
}

// pip is how to start pip; nil when there is none.
func (s *setup) pip(ctx context.Context) []string {
	for _, name := range []string{"pip3", "pip"} {
		if path := s.look(name); path != "" {
			return []string{path}
		}
	}

	python := s.look("python3")
	if python == "" || exec.CommandContext(ctx, python, "-c", "import pip").Run() != nil {
		return nil
	}

	return []string{python, "-m", "pip"}
}

// download runs the client in dir and returns the one archive that it leaves there.
func (s *setup) download(ctx context.Context, src source, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the working folder: %w", err)
	}

	var said bytes.Buffer

	cmd := exec.CommandContext(ctx, src.argv[0], src.argv[1:]...) //nolint:gosec // npm or pip, found on PATH
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = 5 * time.Second
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }

	if err := cmd.Run(); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return "", fmt.Errorf("did not end within %s", s.timeout)
		}

		return "", fmt.Errorf("%s failed: %w: %s", src.name, err, telling(said.String()))
	}

	found, err := filepath.Glob(filepath.Join(dir, src.pattern))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%s left %d files %s, want one", src.name, len(found), src.pattern)
	}

	return found[0], nil
}

// telling picks the line of a client's output that says why it failed.
func telling(said string) string {
	const most = 200

	lines := strings.Split(strings.TrimSpace(said), "\n")
	best := lines[len(lines)-1]

	for _, line := range lines {
		lower := strings.ToLower(line)
		if strings.Contains(lower, "error") && !strings.Contains(lower, "complete log") {
			best = line

			break
		}
	}

	if best = strings.TrimSpace(best); len(best) > most {
		best = best[:most] + "…"
	}

	if best == "" {
		return "it gave no reason"
	}

	return best
}

// untar takes members out of a gzipped tarball into dir.
func untar(archive, dir string, members map[string]string) (map[string]string, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	defer func() { _ = f.Close() }() // only read

	zr, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("read gzip: %w", err)
	}

	found := make(map[string]string, len(members))
	tr := tar.NewReader(zr)

	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}

		if err != nil {
			return nil, fmt.Errorf("read tar: %w", err)
		}

		name, ok := members[h.Name]
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}

		if found[h.Name], err = save(tr, dir, name); err != nil {
			return nil, err
		}
	}
}

// unzip takes members out of a zip file into dir.
func unzip(archive, dir string, members map[string]string) (map[string]string, error) {
	zr, err := zip.OpenReader(archive)
	if err != nil {
		return nil, fmt.Errorf("read zip: %w", err)
	}
	defer func() { _ = zr.Close() }() // only read

	found := make(map[string]string, len(members))

	for _, zf := range zr.File {
		name, ok := members[zf.Name]
		if !ok || !zf.Mode().IsRegular() {
			continue
		}

		r, err := zf.Open()
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", zf.Name, err)
		}

		found[zf.Name], err = save(r, dir, name)
		_ = r.Close() // save has seen the end, and with it the checksum

		if err != nil {
			return nil, err
		}
	}

	return found, nil
}

// save writes r to a file in dir and makes sure that it is on disk.
func save(r io.Reader, dir, name string) (string, error) {
	path := filepath.Join(dir, name)

	f, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("create %s: %w", name, err)
	}

	n, err := io.Copy(f, io.LimitReader(r, maxMember+1))
	if err == nil && n > maxMember {
		err = fmt.Errorf("has more than %d bytes", maxMember)
	}

	if err == nil {
		err = f.Sync()
	}

	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}

	return path, nil
}

// hashError means that a package client brought another file than the pinned one.
type hashError struct{ name, got, want string }

func (e *hashError) Error() string {
	return fmt.Sprintf("%s has SHA-256 %s, want %s; nothing was installed", e.name, e.got, e.want)
}

func verify(path, want string) error {
	got, err := fileSHA256(path)
	if err != nil {
		return fmt.Errorf("hash the library: %w", err)
	}

	if got != want {
		return &hashError{name: filepath.Base(path), got: got, want: want}
	}

	return nil
}

func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err //nolint:wrapcheck // the caller tells errors apart
	}
	defer func() { _ = f.Close() }() // only read

	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}

	return hex.EncodeToString(h.Sum(nil)), nil
}
