package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ErrNoLog is returned for an instance of which this machine has no log.
var ErrNoLog = errors.New("there is no log of the instance on this machine")

// logPoll is how often a log that is followed is looked at.
const logPoll = 100 * time.Millisecond

// LogOptions say what of a log is read.
type LogOptions struct {
	// Tail is how many of the last lines come; negative for all that are kept.
	Tail int
	// Follow waits for more until the instance has ended.
	Follow bool
}

// CopyLog gives the log of an instance to write, piece by piece, until its end, or until ctx ends.
func (l *Local) CopyLog(ctx context.Context, serviceID, id string, o LogOptions, write func([]byte) error) error {
	if l.cfg.LogDir == "" || !plainName(serviceID) || !plainName(id) {
		return ErrNoLog
	}

	path := l.LogFile(serviceID, id)

	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoLog
	}

	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}

	r := &logReader{owner: l, id: id, path: path, f: f, write: write}
	defer func() { _ = r.f.Close() }()

	if err := r.seek(o.Tail); err != nil {
		return err
	}

	if err := r.rest(); err != nil || !o.Follow {
		return err
	}

	return r.follow(ctx)
}

// Forget removes the logs of a service, also those that another launcher of this machine began.
func (l *Local) Forget(serviceID string) {
	if l.cfg.LogDir == "" || !plainName(serviceID) {
		return
	}

	dir := filepath.Join(l.cfg.LogDir, serviceID)

	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}

	for _, f := range files {
		if target, lerr := os.Readlink(filepath.Join(dir, f.Name())); lerr == nil {
			if rerr := os.Remove(target); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
				err = errors.Join(err, rerr)
			}
		}
	}

	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		l.log.Warn("logs of a deleted service stay", slog.String("service_id", serviceID), slog.Any("error", err))
	}
}

// plainName reports whether a name cannot lead to another directory.
func plainName(s string) bool {
	return s != "" && filepath.IsLocal(s) && !strings.ContainsAny(s, `/\`) && s != "."
}

// logReader reads the file of an instance, across its rotation.
type logReader struct {
	owner    *Local
	id, path string
	f        *os.File
	write    func([]byte) error
	buf      [16 << 10]byte
}

// seek goes to where the last n lines begin, and gives those of them that stand in the older file.
func (r *logReader) seek(n int) error {
	at, found, err := tailAt(r.f, n)
	if err != nil {
		return err
	}

	if older := n - found; n < 0 || older > 0 {
		if n < 0 {
			older = n
		}

		if err := r.older(older); err != nil {
			return err
		}
	}

	if _, err := r.f.Seek(at, io.SeekStart); err != nil {
		return fmt.Errorf("read log: %w", err)
	}

	return nil
}

// older gives the last n lines of the rotated file, if there is one.
func (r *logReader) older(n int) error {
	f, err := os.Open(r.path + rotatedSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}

	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer func() { _ = f.Close() }()

	at, _, err := tailAt(f, n)
	if err != nil {
		return err
	}

	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return fmt.Errorf("read log: %w", err)
	}

	return r.copy(f)
}

// tailAt finds where the last n lines of f begin, and how many lines that are; 0 for all of them.
func tailAt(f *os.File, n int) (at int64, lines int, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0, fmt.Errorf("read log: %w", err)
	}

	if n < 0 {
		return 0, 0, nil
	}

	if n == 0 {
		return end, 0, nil
	}

	var block [16 << 10]byte

	for at = end; at > 0; {
		size := min(at, int64(len(block)))
		at -= size

		if _, err := f.ReadAt(block[:size], at); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, fmt.Errorf("read log: %w", err)
		}

		for part := block[:size]; ; {
			i := bytes.LastIndexByte(part, '\n')
			if i < 0 {
				break
			}
			// Every line but the last one begins behind the end of another.
			if at+int64(i)+1 < end {
				if lines++; lines == n {
					return at + int64(i) + 1, n, nil
				}
			}

			part = part[:i]
		}
	}

	if end > 0 {
		lines++
	}

	return 0, lines, nil
}

// rest gives what the file holds.
func (r *logReader) rest() error { return r.copy(r.f) }

func (r *logReader) copy(f io.Reader) error {
	for {
		n, err := f.Read(r.buf[:])
		if n > 0 {
			if err := r.write(r.buf[:n]); err != nil {
				return err
			}
		}

		if errors.Is(err, io.EOF) {
			return nil
		}

		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}
}

// follow gives what is added, until the instance has ended.
func (r *logReader) follow(ctx context.Context) error {
	tick := time.NewTicker(logPoll)
	defer tick.Stop()

	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}

		running := r.owner.Running(r.id)

		if err := r.turn(); err != nil {
			return err
		}

		if !running {
			return nil
		}
	}
}

// turn gives what came, and moves on to the next file if the log was rotated.
func (r *logReader) turn() error {
	now, err := os.Stat(r.path)
	moved := err == nil && !sameFile(r.f, now)

	// What the old file got before it was moved is complete only now.
	if err := r.rest(); err != nil || !moved {
		return err
	}

	f, err := os.Open(r.path)
	if err != nil {
		return nil //nolint:nilerr // between two files; the next turn sees it
	}

	_ = r.f.Close()
	r.f = f

	return r.rest()
}

func sameFile(f *os.File, info fs.FileInfo) bool {
	mine, err := f.Stat()

	return err == nil && os.SameFile(mine, info)
}
