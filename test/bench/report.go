package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// report collects Markdown.
type report struct {
	body   bytes.Buffer
	bounds []bound
}

func (r *report) section(title string) { fmt.Fprintf(&r.body, "\n## %s\n\n", title) }

func (r *report) text(format string, args ...any) { fmt.Fprintf(&r.body, format+"\n\n", args...) }

// table writes a header and rows of equal length.
func (r *report) table(header []string, rows [][]string) {
	line := func(cells []string) { fmt.Fprintf(&r.body, "| %s |\n", strings.Join(cells, " | ")) }

	line(header)
	line(strings.Split(strings.Repeat("---,", len(header)-1)+"---", ","))

	for _, row := range rows {
		line(row)
	}

	r.body.WriteString("\n")
}

func (r *report) write(path string, args []string) error {
	var head bytes.Buffer

	fmt.Fprintf(&head, "# Benchmarks of %s\n\n", time.Now().Format("2 January 2006"))
	fmt.Fprintf(&head, "Made by `make bench` (`go run ./test/bench %s`). Rates depend on the machine and on what else runs on it;\n"+
		"read the ratios. They compare targets that were run in turn; in brackets the least and the greatest of the rounds.\n\n", strings.Join(args, " "))
	fmt.Fprintf(&head, "- machine: %d processors, %s, %s/%s, load average at the end %s\n", runtime.NumCPU(), cpuModel(), runtime.GOOS, runtime.GOARCH, loadAverage())
	fmt.Fprintf(&head, "- versions: %s\n", strings.Join(versions(), ", "))

	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // documentation
		return fmt.Errorf("report: %w", err)
	}

	if err := os.WriteFile(path, append(head.Bytes(), r.body.Bytes()...), 0o644); err != nil { //nolint:gosec // documentation
		return fmt.Errorf("report: %w", err)
	}

	return nil
}

func cpuModel() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}

	_, rest, _ := strings.Cut(string(data), "model name")
	line, _, _ := strings.Cut(rest, "\n")

	return strings.Trim(line, "\t :")
}

func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}

	return strings.Join(strings.Fields(string(data))[:3], " ")
}

func versions() []string {
	list := []string{runtime.Version()}

	for _, c := range [][]string{
		{"bin/sluice", "--version"}, {"wrk", "-v"}, {"nginx", "-v"}, {"haproxy", "-v"}, {"uname", "-sr"},
	} {
		out, err := exec.Command(c[0], c[1:]...).CombinedOutput() //nolint:gosec,noctx // fixed commands that end at once
		if len(out) == 0 && err != nil {
			continue
		}

		line, _, _ := strings.Cut(string(out), "\n")
		list = append(list, strings.TrimSpace(line))
	}

	return list
}
