package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of "go test -json" (see "go doc test2json").
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// Bounds of what is kept for a failure.
const (
	maxLine   = 16 << 20
	maxOutput = 256 << 10
)

// summary counts tests. A test with subtests counts as its subtests do, unless it fails
// on its own. A package that fails outside its tests counts as one failure.
type summary struct {
	passed, failed, skipped int
	out                     io.Writer
	err                     error
	packages                map[string]*pkg
	builds                  map[string]*tail
}

type pkg struct {
	tests   map[string]*test
	output  tail // outside tests
	count   int
	failed  int
	skipped []string
}

type test struct {
	output     tail
	parent     bool
	subFailed  bool
	lastAction string
}

// tail keeps the end of an output.
type tail struct {
	text    []byte
	dropped bool
}

func (t *tail) add(s string) {
	t.text = append(t.text, s...)
	if over := len(t.text) - maxOutput; over > 0 {
		t.text = slices.Delete(t.text, 0, over)
		t.dropped = true
	}
}

func (t *tail) String() string {
	if t.dropped {
		return "[… cut …]\n" + string(t.text)
	}

	return string(t.text)
}

// summarize reads the stream to its end. Lines that are no events are passed on.
func summarize(r io.Reader, out io.Writer) (*summary, error) {
	s := &summary{out: out, packages: map[string]*pkg{}, builds: map[string]*tail{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)

	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Action == "" {
			s.printf("%s\n", lines.Text())

			continue
		}

		s.handle(&e)
	}

	if err := lines.Err(); err != nil {
		return s, fmt.Errorf("read the test stream: %w", err)
	}

	s.unfinished()

	return s, s.err
}

func (s *summary) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(s.out, format, args...); err != nil && s.err == nil {
		s.err = fmt.Errorf("print: %w", err)
	}
}

func (s *summary) line() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", s.passed, s.failed, s.skipped)
}

func (s *summary) handle(e *event) {
	switch {
	case e.Action == "build-output":
		b := s.builds[e.ImportPath]
		if b == nil {
			b = &tail{}
			s.builds[e.ImportPath] = b
		}

		b.add(e.Output)
	case e.Package == "":
	case e.Test != "":
		s.testEvent(e)
	default:
		s.packageEvent(e)
	}
}

func (s *summary) pkg(name string) *pkg {
	p := s.packages[name]
	if p == nil {
		p = &pkg{tests: map[string]*test{}}
		s.packages[name] = p
	}

	return p
}

func (p *pkg) test(name string) *test {
	t := p.tests[name]
	if t == nil {
		t = &test{}
		p.tests[name] = t
	}

	return t
}

func (s *summary) testEvent(e *event) {
	p := s.pkg(e.Package)
	t := p.test(e.Test)

	if e.Action == "output" {
		t.output.add(e.Output)

		return
	}

	t.lastAction = e.Action

	i := strings.LastIndexByte(e.Test, '/')
	for up := e.Test; i > 0; i = strings.LastIndexByte(up, '/') {
		up = up[:i]
		above := p.test(up)
		above.parent = true
		above.subFailed = above.subFailed || e.Action == "fail"
	}

	switch e.Action {
	case "pass":
		if !t.parent {
			s.passed++
			p.count++
		}

		t.output = tail{}
	case "skip":
		s.skipped++
		p.skipped = append(p.skipped, e.Test+": "+reason(t.output.String()))
	case "fail":
		if !t.subFailed {
			s.failed++
			p.failed++
		}

		s.printf("--- FAIL: %s %s\n%s", e.Package, e.Test, indent(t.output.String()))
	}
}

func (s *summary) packageEvent(e *event) {
	p := s.pkg(e.Package)

	switch e.Action {
	case "output":
		p.output.add(e.Output)

		return
	case "pass":
		s.printf("ok    %s (%d tests, %.1f s)\n", e.Package, p.count, e.Elapsed)

		for _, why := range p.skipped {
			s.printf("      skipped %s\n", why)
		}
	case "skip":
		s.printf("-     %s (no tests)\n", e.Package)
	case "fail":
		s.packageFailed(e, p)
	default:
		return
	}

	delete(s.packages, e.Package)
}

// packageFailed shows what failed outside the tests that have been shown: a build, a
// panic, a time-out, a race after the last test.
func (s *summary) packageFailed(e *event, p *pkg) {
	if e.FailedBuild != "" {
		if b := s.builds[e.FailedBuild]; b != nil {
			s.printf("%s", indent(b.String()))
		}
	}

	for _, name := range sortedNames(p.tests) {
		if t := p.tests[name]; t.lastAction != "pass" && t.lastAction != "skip" && t.lastAction != "fail" {
			s.failed++
			p.failed++
			s.printf("--- FAIL: %s %s did not end\n%s", e.Package, name, indent(t.output.String()))
		}
	}

	if p.failed == 0 {
		s.failed++
		s.printf("%s", indent(p.output.String()))
	}

	s.printf("FAIL  %s (%.1f s)\n", e.Package, e.Elapsed)
}

// unfinished counts packages of which the stream tells no end: go test was cut off.
func (s *summary) unfinished() {
	for _, name := range sortedNames(s.packages) {
		s.failed++
		s.printf("FAIL  %s did not end\n%s", name, indent(s.packages[name].output.String()))
	}

	if len(s.packages) > 0 && s.err == nil {
		s.err = errors.New("the test stream ends too early")
	}
}

// reason finds why a test was skipped in its output.
func reason(output string) string {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			return line
		}
	}

	return "no reason given"
}

func indent(text string) string {
	var b strings.Builder

	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "=== ") || strings.HasPrefix(strings.TrimSpace(line), "--- FAIL: ") {
			continue // framing, which the line above the output says already
		}

		b.WriteString("    ")
		b.WriteString(line)

		if !strings.HasSuffix(line, "\n") {
			b.WriteByte('\n')
		}
	}

	return b.String()
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}

	slices.Sort(names)

	return names
}
