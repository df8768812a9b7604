package launch

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// A custom engine may outlive the launcher that started it, as a worker may (--orphan of sluice-runtime). Its
// supervisor then stands in: it captures what the engine prints, and listens to the same signals,
// sigLookedAfter and sigDrain. Whether the engine may stay is said through the pipe whose end tells that the launcher is
// gone: one byte, once the instance is recorded where another launcher finds it. Nobody would ever look
// after an engine without a record.

// signals are those that the supervisor heeds. One that stands in for the launcher must not die of a
// pipe that nobody reads; the engine itself starts with what is usual.
func (o *superviseOptions) signals() []os.Signal {
	list := []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}
	if o.orphan > 0 {
		list = append(list, sigLookedAfter, sigDrain, syscall.SIGPIPE)
	}

	return list
}

// attend passes signals on and sees to it that the engine does not stay when nobody wants it.
func (s *supervised) attend() {
	gone := make(chan bool, 1)
	go func() { gone <- waitForEOF(s.o.parent) }()

	timer := time.NewTimer(time.Hour)
	timer.Stop()

	told := false // to drain, by whoever takes over or because nobody did

	for {
		select {
		case kept := <-gone:
			if !kept || s.o.orphan <= 0 {
				killGroup(s.cmd.Process)

				return
			}

			s.alone.Store(true)
			timer.Reset(s.o.orphan)
		case sig := <-s.signals:
			switch {
			case sig == syscall.SIGPIPE:
			case sig == sigLookedAfter:
				if s.alone.Load() {
					timer.Reset(s.o.orphan)
				}
			case sig == sigDrain && told:
			case sig == sigDrain:
				told = true

				s.signal(syscall.SIGTERM)
			default:
				s.signal(sig)
			}
		case <-timer.C:
			if told {
				killGroup(s.cmd.Process)

				return
			}

			told = true

			s.out.note("nobody looks after this engine; draining")
			s.signal(syscall.SIGTERM)
			timer.Reset(s.o.grace)
		}
	}
}

// signal tells the engine to end.
func (s *supervised) signal(sig os.Signal) {
	s.door.drain()

	_ = s.cmd.Process.Signal(sig) // it may have ended
}

// capture takes what an engine prints: every line into a file, and on to the launcher as long as there
// is one.
type capture struct {
	file    *rotating // nil without one
	streams [2]*stream
	readers sync.WaitGroup
}

// stream is one of the outputs.
type stream struct {
	r, w *os.File
	to   *os.File // the launcher's; nil once it is gone
}

func openCapture(path string, maxBytes int64) (*capture, error) {
	c := &capture{streams: [2]*stream{{to: os.Stdout}, {to: os.Stderr}}}

	for _, s := range c.streams {
		var err error
		if s.r, s.w, err = os.Pipe(); err != nil {
			return nil, fmt.Errorf("capture output: %w", err)
		}
	}

	if path == "" {
		return c, nil
	}

	// A full or broken disk must not keep an engine from serving.
	var err error
	if c.file, err = openRotating(path, maxBytes); err != nil {
		fmt.Fprintln(os.Stderr, "supervise: no log file for the instance:", err) //nolint:errcheck // nobody else to tell
	}

	return c, nil
}

// started is called once the engine holds the write ends.
func (c *capture) started() {
	for _, s := range c.streams {
		_ = s.w.Close()

		c.readers.Go(func() {
			readLines(s.r, func(text string) {
				c.write(text)

				if s.to == nil {
					return
				}

				if _, err := s.to.WriteString(text + "\n"); err != nil {
					s.to = nil // the launcher is gone
				}
			})
		})
	}
}

func (c *capture) write(text string) {
	if c.file != nil {
		c.file.writeLine(text)
	}
}

// ownRemark begins a line of our own in the log of an engine.
const ownRemark = "sluice: "

// note adds a remark of our own to the file.
func (c *capture) note(text string) {
	if c != nil {
		c.write(ownRemark + text)
	}
}

// wait gives the readers d to see what is left, and ends them.
func (c *capture) wait(d time.Duration) {
	for _, s := range c.streams {
		_ = s.r.SetReadDeadline(time.Now().Add(d))
	}

	c.readers.Wait()
}
