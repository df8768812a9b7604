package launch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	maxLine      = 16 << 10 // longer lines are cut
	tailLines    = 8
	maxReason    = 500 // bytes
	linesPerSec  = 100 // to our own log; the file gets every line
	keepLogFiles = 20  // of one service
)

// output captures what a process prints: line by line into our log, into its own file,
// and the last lines of stderr into the tail, for the reason of its exit.
type output struct {
	stdoutW, stderrW *os.File
	stdoutR, stderrR *os.File
	file             *rotating
	readers          sync.WaitGroup
	limit            lineLimit
	owner            *process
}

func (p *process) openOutput() (*output, error) {
	o := &output{owner: p}

	var err error
	if o.stdoutR, o.stdoutW, err = os.Pipe(); err != nil {
		return nil, fmt.Errorf("capture output: %w", err)
	}

	if o.stderrR, o.stderrW, err = os.Pipe(); err != nil {
		o.close()

		return nil, fmt.Errorf("capture output: %w", err)
	}

	if dir := p.owner.cfg.LogDir; dir != "" {
		path := p.owner.LogFile(p.task.ServiceID, p.task.ID)
		pruneLogs(filepath.Dir(path), keepLogFiles)

		// A full or broken disk must not keep a model from serving.
		if o.file, err = openRotating(path, p.owner.cfg.MaxLogBytes); err != nil {
			p.log.Warn("no log file for the instance", slog.Any("error", err))
		}

		if o.file != nil && p.outlives() { // its supervisor writes it
			o.file.close()
			o.file = nil
		}
	}

	return o, nil
}

// started is called once the process holds the write ends.
func (o *output) started() {
	_ = o.stdoutW.Close()
	_ = o.stderrW.Close()

	o.readers.Go(func() { o.read(o.stdoutR, "stdout") })
	o.readers.Go(func() { o.read(o.stderrR, "stderr") })
}

// wait gives the readers d to see what is left, and ends them.
func (o *output) wait(d time.Duration) {
	end := time.Now().Add(d)
	_ = o.stdoutR.SetReadDeadline(end)
	_ = o.stderrR.SetReadDeadline(end)

	o.readers.Wait()
}

func (o *output) close() {
	for _, f := range []*os.File{o.stdoutR, o.stdoutW, o.stderrR, o.stderrW} {
		if f != nil {
			_ = f.Close() // a second close of the write ends is harmless
		}
	}

	if o.file != nil {
		o.file.close()
	}
}

func (o *output) read(f *os.File, stream string) {
	readLines(f, func(text string) { o.line(text, stream) })
}

// readLines gives every line that is not empty, cut to maxLine, until the end.
func readLines(f *os.File, each func(text string)) {
	r := bufio.NewReaderSize(f, maxLine)

	for {
		line, err := r.ReadSlice('\n')
		if text := strings.TrimRight(string(line), "\r\n"); text != "" {
			each(text)
		}

		if errors.Is(err, bufio.ErrBufferFull) {
			err = skipLine(r)
		}

		if err != nil {
			return
		}
	}
}

// skipLine drops the rest of a line that is too long.
func skipLine(r *bufio.Reader) error {
	for {
		_, err := r.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err //nolint:wrapcheck // only its being nil matters
		}
	}
}

func (o *output) line(text, stream string) {
	if stream == "stderr" {
		o.owner.tail.add(text)
	}

	if o.file != nil {
		o.file.writeLine(text)
	}

	if ok, dropped := o.limit.allow(time.Now()); ok {
		attrs := []slog.Attr{slog.String("stream", stream), slog.String("line", text)}
		if dropped > 0 {
			attrs = append(attrs, slog.Int("suppressed", dropped))
		}

		o.owner.log.LogAttrs(context.Background(), slog.LevelInfo, "engine output", attrs...)
	}
}

// lineLimit lets linesPerSec lines a second pass.
type lineLimit struct {
	mu      sync.Mutex
	second  int64
	used    int
	dropped int
}

func (l *lineLimit) allow(now time.Time) (ok bool, dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if s := now.Unix(); s != l.second {
		l.second, l.used = s, 0
	}

	if l.used++; l.used > linesPerSec {
		l.dropped++

		return false, 0
	}

	dropped, l.dropped = l.dropped, 0

	return true, dropped
}

// tail remembers what a process said last.
type tail struct {
	mu    sync.Mutex
	lines []string
	panic string // the first line of a Go panic, which a long trace follows
	noted string // our own remark
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()

	if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
		t.panic = line
	}

	if len(t.lines) == tailLines {
		t.lines = append(t.lines[:0], t.lines[1:]...)
	}

	t.lines = append(t.lines, line)
}

func (t *tail) note(remark string) {
	t.mu.Lock()
	defer t.mu.Unlock()

	t.noted = remark
}

// reason is one line that explains an exit best.
func (t *tail) reason() string {
	t.mu.Lock()
	defer t.mu.Unlock()

	text := t.panic
	for i := len(t.lines) - 1; i >= 0 && text == ""; i-- {
		text = readable(strings.TrimSpace(t.lines[i]))
	}

	switch {
	case t.noted == "":
	case text == "":
		text = t.noted
	default:
		text = t.noted + ": " + text
	}

	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}

	return text
}

// readable turns a line of a JSON log into words.
func readable(line string) string {
	var rec map[string]any
	if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &rec) != nil {
		return line
	}

	msg, ok := rec["msg"].(string)
	if !ok {
		return line
	}

	for _, key := range []string{"error", "err", "reason"} {
		if text, ok := rec[key].(string); ok && text != "" {
			return msg + ": " + text
		}
	}

	return msg
}

// rotatedSuffix is added to the name of a log file that is full.
const rotatedSuffix = ".1"

// rotating is a log file that is moved to path.1 when it is full.
type rotating struct {
	mu   sync.Mutex
	path string
	max  int64
	f    *os.File
	size int64
}

func openRotating(path string, maxBytes int64) (*rotating, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}

	r := &rotating{path: path, max: maxBytes}
	if err := r.open(); err != nil {
		return nil, err
	}

	return r, nil
}

func (r *rotating) open() error {
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}

	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		_ = f.Close()

		return fmt.Errorf("open log file: %w", err)
	}

	r.f, r.size = f, size

	return nil
}

// writeLine adds a line. A line that cannot be written is lost: nobody could be told but
// the log, which has it already.
func (r *rotating) writeLine(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()

	if r.f == nil {
		return
	}

	if r.size > 0 && r.size+int64(len(text)) >= r.max {
		_ = r.f.Close()
		r.f = nil

		if os.Rename(r.path, r.path+rotatedSuffix) != nil || r.open() != nil {
			return
		}
	}

	n, _ := r.f.WriteString(text + "\n")
	r.size += int64(n)
}

func (r *rotating) close() {
	r.mu.Lock()
	defer r.mu.Unlock()

	if r.f != nil {
		_ = r.f.Close()
		r.f = nil
	}
}

// pruneLogs keeps the newest files of dir, so that a crash loop does not fill the disk.
func pruneLogs(dir string, keep int) {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < keep {
		return
	}

	type aged struct {
		path string
		at   time.Time
	}

	files := make([]aged, 0, len(entries))

	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			files = append(files, aged{filepath.Join(dir, e.Name()), info.ModTime()})
		}
	}

	for len(files) >= keep {
		oldest := 0

		for i := range files {
			if files[i].at.Before(files[oldest].at) {
				oldest = i
			}
		}

		_ = os.Remove(files[oldest].path) // tried again next time
		files = append(files[:oldest], files[oldest+1:]...)
	}
}
