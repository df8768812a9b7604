package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// Live writes the progress of a run: on a terminal one line that changes, else one line a second.
type Live struct {
	w        io.Writer
	terminal bool
	warmup   time.Duration
	whole    time.Duration // warm-up and measured time; 0 if it is not known
	dirty    bool
}

// NewLive returns a Live for a run of the given length.
func NewLive(w io.Writer, terminal bool, warmup, duration time.Duration) *Live {
	return &Live{w: w, terminal: terminal, warmup: warmup, whole: warmup + duration}
}

// Row shows one second.
func (l *Live) Row(r measure.Row) {
	done := time.Duration(r.Second+1) * time.Second
	if l.whole > 0 && done-time.Second >= l.whole {
		return // answers that came late
	}

	phase := ""

	if done <= l.warmup {
		phase = " warm-up"
	}

	text := fmt.Sprintf("%s%s%s  %d/s", l.bar(done), position(done, l.whole), phase, r.Requests+r.Warm)

	if r.Requests > 0 {
		text += fmt.Sprintf("  p50 %s  p90 %s  p99 %s  max %s", short(r.P50), short(r.P90), short(r.P99), short(r.Max))
	}

	if r.Failed > 0 {
		text += fmt.Sprintf("  %d failed", r.Failed)
	}

	if l.terminal {
		l.dirty = true

		fmt.Fprintf(l.w, "\r\x1b[K%s", text) //nolint:errcheck // progress that nobody reads is no reason to end a run

		return
	}

	fmt.Fprintln(l.w, text) //nolint:errcheck // progress that nobody reads is no reason to end a run
}

// Close ends the line that changes.
func (l *Live) Close() {
	if l.dirty {
		fmt.Fprint(l.w, "\r\x1b[K") //nolint:errcheck // progress that nobody reads is no reason to end a run
	}

	l.dirty = false
}

func (l *Live) bar(done time.Duration) string {
	if !l.terminal || l.whole <= 0 {
		return ""
	}

	const width = 20

	full := int(min(float64(done)/float64(l.whole), 1) * width)

	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "] "
}

func position(done, whole time.Duration) string {
	const unknown = 1000 * time.Hour
	if whole <= 0 || whole >= unknown {
		return done.String()
	}

	return min(done, whole.Round(time.Second)).String() + "/" + whole.Round(time.Second).String()
}
