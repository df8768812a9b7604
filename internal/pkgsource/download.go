package pkgsource

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-gateway/sluice/internal/atomicfile"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// piece is what a source delivers of a file.
type piece struct {
	body      io.ReadCloser
	offset    int64  // where body begins: what was asked for, or 0
	total     int64  // size of the whole file; -1 when unknown
	validator string // proves later that the file is the same; "" when nothing does
}

// download is the transfer of one file, over as many connections as it takes.
type download struct {
	cfg    *Config
	loc    location
	path   string
	id     string // what the file is: another id means other bytes
	open   func(ctx context.Context, at int64, validator string) (piece, error)
	report Progress

	state   state
	file    *os.File
	at      int64
	changes int
}

// state is kept beside the file. Bytes beyond Synced may be lost in a crash and do not count.
type state struct {
	ID        string `json:"id"`
	Validator string `json:"validator"`
	Total     int64  `json:"total"`
	Synced    int64  `json:"synced"`
	Done      bool   `json:"done"`
}

const (
	syncEvery  = 64 << 20
	readChunk  = 256 << 10
	maxChanges = 3
)

var errChanged = errors.New("the file changed or its server does not resume")

// run completes the file.
func (d *download) run(ctx context.Context) (err error) {
	if err := d.begin(); err != nil {
		return err
	}

	defer func() { err = errors.Join(err, d.file.Close()) }()

	if d.state.Done {
		d.report(d.at, d.state.Total)

		return nil
	}

	failures := 0

	for attempt := 0; ; attempt++ {
		before := d.at

		err := d.attempt(ctx)
		if err == nil {
			d.state.Done = true

			return d.save()
		}

		if d.at > before {
			failures = 0
		}

		if failures++; ctx.Err() != nil || permanent(err) || failures > d.cfg.Retries || attempt >= maxAttempts {
			return errors.Join(d.final(ctx, err), d.save())
		}

		if err := d.pause(ctx, failures, err); err != nil {
			return errors.Join(err, d.save())
		}
	}
}

// final is the error when no retry follows.
func (d *download) final(ctx context.Context, err error) error {
	var (
		f *fault.Error
		t *temporary
	)

	switch {
	case errors.As(err, &f), ctx.Err() != nil, isLocal(err):
		return err
	case errors.Is(err, errLarge):
		return refuse(nil, "names %s, which is larger than %d bytes", d.loc.shown, d.cfg.MaxBytes)
	case errors.As(err, &t):
		return unreachable(err, d.loc, fmt.Sprintf("answers %d, also after %d tries", t.status, d.cfg.Retries+1))
	case errors.Is(err, errChanged):
		return unreachable(err, d.loc, "changes while it is fetched")
	case errors.Is(err, errIdle):
		return unreachable(err, d.loc, fmt.Sprintf("sent nothing for %s", d.cfg.IdleTimeout))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return unreachable(err, d.loc, "ends before it is complete")
	default:
		return unreachable(err, d.loc, "cannot be reached or breaks off")
	}
}

// permanent errors do not go away by themselves.
func permanent(err error) bool {
	var f *fault.Error

	return errors.As(err, &f) || errors.Is(err, errLarge) || isLocal(err)
}

// isLocal tells trouble with our own files.
func isLocal(err error) bool {
	var p *fs.PathError

	return errors.As(err, &p)
}

func (d *download) pause(ctx context.Context, failures int, err error) error {
	wait := min(d.cfg.Backoff<<min(failures-1, 16), maxBackoff)
	wait = wait/2 + rand.N(wait/2+1) //nolint:gosec // spreads retries, guards nothing

	var t *temporary
	if errors.As(err, &t) {
		wait = max(wait, t.after)
	}

	timer := time.NewTimer(wait)
	defer timer.Stop()

	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin opens the file, and finds how much of it is good.
func (d *download) begin() error {
	if err := os.MkdirAll(filepath.Dir(d.path), 0o700); err != nil {
		return err
	}

	data, err := os.ReadFile(d.path + ".json")
	if err == nil && json.Unmarshal(data, &d.state) != nil || d.state.ID != d.id {
		d.state = state{}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	d.file, err = os.OpenFile(d.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}

	info, err := d.file.Stat()
	if err != nil {
		return errors.Join(err, d.file.Close())
	}

	if d.at = d.state.Synced; d.at < 0 || d.at > info.Size() || d.state.Validator == "" && !d.state.Done {
		d.at, d.state = 0, state{}
	}

	d.state.ID = d.id
	if err := d.cut(d.at); err != nil {
		return errors.Join(err, d.file.Close())
	}

	return nil
}

// cut forgets what lies behind at.
func (d *download) cut(at int64) error {
	if err := d.file.Truncate(at); err != nil {
		return err
	}

	_, err := d.file.Seek(at, io.SeekStart)
	d.at = at

	return err
}

// save makes what came durable, and then says so.
func (d *download) save() error {
	if err := d.file.Sync(); err != nil {
		return err
	}

	d.state.Synced = d.at

	data, err := json.Marshal(d.state)
	if err != nil {
		return fmt.Errorf("save a fetch: %w", err)
	}

	return atomicfile.Write(d.path+".json", data, 0o600)
}

// attempt opens one connection and takes what comes.
func (d *download) attempt(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	if d.state.Validator == "" && d.at > 0 {
		if err := d.cut(0); err != nil {
			return err
		}
	}

	idle := time.AfterFunc(d.cfg.IdleTimeout, func() { cancel(errIdle) })
	defer idle.Stop()

	p, err := d.open(ctx, d.at, d.state.Validator)

	switch {
	case errors.Is(err, errChanged):
		return d.restart(err) //nolint:contextcheck // the next attempt has its own
	case err != nil:
		return cause(ctx, err)
	}
	defer p.body.Close() //nolint:errcheck // read only

	if p.offset != d.at {
		if err := d.cut(p.offset); err != nil {
			return err
		}
	}

	if p.total > d.cfg.MaxBytes {
		return errLarge
	}

	d.state.Total, d.state.Validator = p.total, p.validator

	if err = d.take(p.body, idle); errors.Is(err, errChanged) {
		return d.restart(err) //nolint:contextcheck // as above
	}

	return cause(ctx, err)
}

// restart begins again, but not for ever.
func (d *download) restart(err error) error {
	if d.changes++; d.changes > maxChanges {
		return d.final(context.Background(), err)
	}

	d.state.Validator = ""

	return errors.Join(err, d.cut(0))
}

// cause prefers the reason of our own cancellation.
func cause(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errIdle) {
		return errIdle
	}

	return err
}

func (d *download) take(body io.Reader, idle *time.Timer) error {
	buf := make([]byte, readChunk)

	for unsynced := 0; ; {
		n, err := body.Read(buf)
		idle.Reset(d.cfg.IdleTimeout)

		switch {
		case d.at+int64(n) > d.cfg.MaxBytes:
			return errLarge
		case d.state.Total >= 0 && d.at+int64(n) > d.state.Total:
			return errChanged
		}

		if n > 0 {
			if _, err := d.file.Write(buf[:n]); err != nil {
				return err
			}

			d.at += int64(n)
			d.report(d.at, d.state.Total)
		}

		if unsynced += n; unsynced >= syncEvery {
			unsynced = 0

			if err := d.save(); err != nil {
				return err
			}
		}

		switch {
		case errors.Is(err, io.EOF) && d.state.Total >= 0 && d.at != d.state.Total:
			return io.ErrUnexpectedEOF
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// checkHash compares the whole file with what it must hash to.
func (d *download) checkHash(ctx context.Context, want string) error {
	if want == "" {
		return nil
	}

	file, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // read only

	h := sha256.New()
	if _, err := io.Copy(h, &stoppable{ctx, file}); err != nil {
		return err
	}

	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return refuse(nil, "names %s with the SHA-256 %s, but what came has %s", d.loc.shown, want, got)
	}

	return nil
}

// stoppable ends a copy whose outcome nobody wants any more.
type stoppable struct {
	ctx context.Context //nolint:containedctx // lives for one copy
	in  io.Reader
}

// Read implements io.Reader.
func (s *stoppable) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}

	return s.in.Read(p)
}
